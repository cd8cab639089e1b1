CREATE TABLE compliance_contacts (
    id UUID PRIMARY KEY,
    phone_number_hash VARCHAR(64) NOT NULL UNIQUE,
    last_consent_at TIMESTAMPTZ,
    last_consent_event VARCHAR(10),
    dnc_status VARCHAR(10),
    dnc_checked_at TIMESTAMPTZ,
    last_call_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE compliance_contacts IS
    'The last facts of each phone number, by the order of the log; id is the start of the hash';

CREATE TABLE compliance_consents (
    contact_id UUID NOT NULL,
    consent_type VARCHAR(20) NOT NULL,
    channel VARCHAR(10) NOT NULL,
    granted_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ,
    PRIMARY KEY (contact_id, consent_type, channel)
);

CREATE TABLE compliance_calls (
    contact_id UUID NOT NULL,
    called_at TIMESTAMPTZ NOT NULL,
    sequence_number BIGINT NOT NULL,
    PRIMARY KEY (contact_id, called_at, sequence_number)
);

CREATE TABLE compliance_violations (
    contact_id UUID NOT NULL,
    detected_at TIMESTAMPTZ NOT NULL,
    sequence_number BIGINT NOT NULL,
    severity VARCHAR(10) NOT NULL,
    PRIMARY KEY (contact_id, detected_at, sequence_number)
);

CREATE VIEW compliance_projections AS
SELECT c.id,
       c.phone_number_hash,
       c.last_consent_at,
       s.consent_status,
       s.dnc_status,
       c.last_call_at,
       k.call_count_24h,
       greatest(0, 100
           - CASE s.consent_status
                 WHEN 'granted' THEN 0 WHEN 'none' THEN 10 WHEN 'expired' THEN 20 ELSE 40 END
           - CASE s.dnc_status WHEN 'clear' THEN 0 WHEN 'unknown' THEN 5 ELSE 50 END
           - least(30, 10 * greatest(0, k.call_count_24h - 3))
           - least(50, v.points))::integer AS compliance_score,
       c.updated_at
  FROM compliance_contacts c
 CROSS JOIN LATERAL (
       SELECT CASE
                  WHEN EXISTS (
                      SELECT 1 FROM compliance_consents g
                       WHERE g.contact_id = c.id AND g.revoked_at IS NULL
                         AND (g.expires_at IS NULL OR g.expires_at > now())) THEN 'granted'
                  WHEN c.last_consent_event = 'granted' THEN 'expired'
                  ELSE coalesce(c.last_consent_event, 'none')
              END AS consent_status,
              coalesce(c.dnc_status, 'unknown') AS dnc_status) s
 CROSS JOIN LATERAL (
       SELECT count(*) AS call_count_24h FROM compliance_calls k
        WHERE k.contact_id = c.id AND k.called_at > now() - INTERVAL '24 hours'
          AND k.called_at <= now()) k
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(CASE v.severity
                  WHEN 'low' THEN 2 WHEN 'medium' THEN 5 WHEN 'high' THEN 15 ELSE 30 END), 0)
              AS points
         FROM compliance_violations v
        WHERE v.contact_id = c.id AND v.detected_at > now() - INTERVAL '90 days') v;
COMMENT ON VIEW compliance_projections IS
    'Each phone number as of now(): what expires or falls with time does so without an event';
