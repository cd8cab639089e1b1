INSERT INTO call_statistics AS s (day, direction, outcome, calls, duration_ns)
SELECT DATE '1970-01-01' + n.day, coalesce(n.direction, d.direction, 'unknown'), n.outcome,
       sum(n.calls), sum(n.duration_ns::numeric)
  FROM unnest($1::integer[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[])
           AS n(day, direction, call_id, outcome, calls, duration_ns)
  LEFT JOIN call_directions d ON d.call_id = n.call_id
 GROUP BY 1, 2, 3
ON CONFLICT (day, direction, outcome) DO UPDATE SET
    calls = s.calls + excluded.calls,
    duration_ns = s.duration_ns + excluded.duration_ns
