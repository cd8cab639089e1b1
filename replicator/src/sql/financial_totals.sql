INSERT INTO financial_totals AS t (day, currency, kind, events, minor_units)
SELECT DATE '1970-01-01' + n.day, n.currency, n.kind, n.events, n.minor_units::numeric
  FROM unnest($1::integer[], $2::text[], $3::text[], $4::bigint[], $5::text[])
           AS n(day, currency, kind, events, minor_units)
ON CONFLICT (day, currency, kind) DO UPDATE SET
    events = t.events + excluded.events,
    minor_units = t.minor_units + excluded.minor_units
