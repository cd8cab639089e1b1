INSERT INTO compliance_consents
    (contact_id, consent_type, channel, granted_at, expires_at, revoked_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[],
    $6::timestamptz[])
ON CONFLICT (contact_id, consent_type, channel) DO UPDATE SET
    granted_at = excluded.granted_at,
    expires_at = excluded.expires_at,
    revoked_at = excluded.revoked_at
