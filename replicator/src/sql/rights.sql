-- Grants on what is in $1, a schema, whatever was granted on its like in $2.
SELECT format('GRANT %s ON %s%s.%I TO %s%s', a.privilege_type,
           CASE new.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END,
           new.relnamespace::regnamespace, new.relname,
           CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END,
           CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
  FROM pg_class new
  JOIN pg_class old
    ON old.relname = new.relname AND old.relnamespace = to_regnamespace($2::text)
   AND (old.relkind = 'S') = (new.relkind = 'S')
 CROSS JOIN LATERAL aclexplode(old.relacl) a
  LEFT JOIN pg_roles r ON r.oid = a.grantee
 WHERE new.relnamespace = to_regnamespace($1::text) AND new.relkind IN ('r', 'p', 'v', 'm', 'S')
