-- What else $1, a schema, has: functions, foreign tables, operators, extensions and so on.
SELECT pg_describe_object(d.classid, d.objid, 0)
  FROM pg_depend d
 WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace($1::text)
   AND NOT EXISTS (
       SELECT 1 FROM pg_class c
        WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid
          AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'c'))
   AND NOT EXISTS (
       SELECT 1 FROM pg_type t
        WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND t.typtype IN ('c', 'd', 'e'))
 ORDER BY 1
