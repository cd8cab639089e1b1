-- What $1, a schema, has under names of their own, in the order in which it can be dropped.
SELECT oid, name, kind
  FROM (SELECT c.oid, c.relname::text AS name,
               CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                   WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
               CASE c.relkind WHEN 'v' THEN 1 WHEN 'm' THEN 1 WHEN 'S' THEN 3 ELSE 2 END AS place
          FROM pg_class c
         WHERE c.relnamespace = to_regnamespace($1::text)
           AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
           -- A sequence of a column goes with its table.
           AND NOT (c.relkind = 'S' AND EXISTS (
               SELECT 1 FROM pg_depend d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                  AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))
         UNION ALL
        SELECT t.oid, t.typname::text, CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, 4
          FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
         WHERE t.typnamespace = to_regnamespace($1::text)
           AND (t.typtype IN ('d', 'e') OR c.relkind = 'c')) o
 ORDER BY place, oid DESC
