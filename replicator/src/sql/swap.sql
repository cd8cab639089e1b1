DO $swap$
DECLARE
    shadow CONSTANT regnamespace := to_regnamespace(quote_ident(:shadow));
    served CONSTANT regnamespace := to_regnamespace(quote_ident(:served));
    relation record;
    right_of record;
    kind text;
BEGIN
    -- Rights, while both are there.
    FOR right_of IN
        SELECT new.oid::regclass AS relation, a.privilege_type, a.is_grantable,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END AS grantee
          FROM pg_class new
          JOIN pg_class old ON old.relname = new.relname AND old.relnamespace = served
         CROSS JOIN LATERAL aclexplode(old.relacl) a
          LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE new.relnamespace = shadow AND new.relkind IN ('r', 'p', 'v', 'm')
    LOOP
        EXECUTE format('GRANT %s ON %s TO %s%s', right_of.privilege_type, right_of.relation,
            right_of.grantee, CASE WHEN right_of.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    -- Views go before what they read, and come after it.
    FOR relation IN
        SELECT old.oid::regclass AS name, old.relkind
          FROM pg_class old JOIN pg_class new USING (relname)
         WHERE old.relnamespace = served AND new.relnamespace = shadow
           AND old.relkind IN ('r', 'p', 'v', 'm')
         ORDER BY old.relkind IN ('r', 'p'), old.oid DESC
    LOOP
        kind := CASE relation.relkind
            WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END;
        EXECUTE format('DROP %s %s', kind, relation.name);
    END LOOP;
    FOR relation IN
        SELECT oid::regclass AS name, relkind FROM pg_class
         WHERE relnamespace = shadow AND relkind IN ('r', 'p', 'v', 'm')
    LOOP
        kind := CASE relation.relkind
            WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END;
        EXECUTE format('ALTER %s %s SET SCHEMA %s', kind, relation.name, served);
    END LOOP;
END
$swap$
