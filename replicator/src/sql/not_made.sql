-- Those of the names $2 under which no replicator made anything for the projection $1.
SELECT n.name
  FROM unnest($2::text[]) AS n(name)
 WHERE NOT EXISTS (
       SELECT 1 FROM :own.quipu_replicator_migrations m
        WHERE m.projection = $1
          -- The programs before noted no names: what the definition does not even mention it has
          -- not made.
          AND CASE WHEN m.made IS NOT NULL THEN n.name = ANY (m.made)
                  ELSE coalesce(strpos(lower(m.definition), lower(n.name)) > 0, true) END)
 ORDER BY 1
