INSERT INTO compliance_contacts AS c (id, phone_number_hash, last_consent_at, last_consent_event,
    dnc_status, dnc_checked_at, last_call_at, updated_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[],
    $6::timestamptz[], $7::timestamptz[], $8::timestamptz[])
ON CONFLICT (id) DO UPDATE SET
    last_consent_at = coalesce(excluded.last_consent_at, c.last_consent_at),
    last_consent_event = coalesce(excluded.last_consent_event, c.last_consent_event),
    dnc_status = coalesce(excluded.dnc_status, c.dnc_status),
    dnc_checked_at = coalesce(excluded.dnc_checked_at, c.dnc_checked_at),
    last_call_at = coalesce(excluded.last_call_at, c.last_call_at),
    updated_at = excluded.updated_at
