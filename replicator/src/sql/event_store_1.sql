CREATE TABLE event_store (
    sequence_number BIGINT PRIMARY KEY,
    id UUID NOT NULL,
    aggregate_id VARCHAR(255) NOT NULL,
    aggregate_type VARCHAR(100) NOT NULL,
    event_type VARCHAR(100) NOT NULL,
    event_data JSONB,
    metadata JSONB NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    schema_version INTEGER NOT NULL,
    content_type VARCHAR(100),
    event_bytes BYTEA,
    custom_bytes BYTEA,
    UNIQUE (aggregate_type, aggregate_id, version),
    CHECK ((event_data IS NULL) <> (event_bytes IS NULL))
);
CREATE INDEX event_store_event_type ON event_store (event_type, created_at);
CREATE INDEX event_store_created_at ON event_store (created_at);
CREATE INDEX event_store_correlation ON event_store ((metadata ->> 'correlation_id'));
COMMENT ON COLUMN event_store.content_type IS 'NULL for application/json';
COMMENT ON COLUMN event_store.event_bytes IS
    'the payload where JSONB cannot hold it: event_data is NULL then';
COMMENT ON COLUMN event_store.custom_bytes IS
    'the custom metadata where JSONB cannot hold it: metadata has no custom then';

CREATE VIEW audit_trail AS
SELECT sequence_number,
       created_at,
       (metadata ->> 'user_id')::uuid AS user_id,
       event_type,
       aggregate_type,
       aggregate_id,
       version,
       metadata ->> 'ip_address' AS ip_address,
       metadata ->> 'user_agent' AS user_agent,
       metadata ->> 'correlation_id' AS correlation_id,
       metadata ->> 'causation_id' AS causation_id,
       id
  FROM event_store;
COMMENT ON VIEW audit_trail IS
    'Who did what to which aggregate, when and from where; one business transaction by correlation_id';
