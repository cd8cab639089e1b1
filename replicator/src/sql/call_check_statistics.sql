INSERT INTO call_check_statistics AS s (day, direction, check_type, checks, failed, duration_ns)
SELECT DATE '1970-01-01' + n.day, n.direction, n.check_type, n.checks, n.failed,
       n.duration_ns::numeric
  FROM unnest($1::integer[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
           AS n(day, direction, check_type, checks, failed, duration_ns)
ON CONFLICT (day, direction, check_type) DO UPDATE SET
    checks = s.checks + excluded.checks,
    failed = s.failed + excluded.failed,
    duration_ns = s.duration_ns + excluded.duration_ns
