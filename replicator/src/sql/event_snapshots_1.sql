CREATE TABLE event_snapshots (
    sequence_number BIGINT PRIMARY KEY,
    id UUID NOT NULL,
    aggregate_id VARCHAR(255) NOT NULL,
    aggregate_type VARCHAR(100) NOT NULL,
    version INTEGER NOT NULL,
    state JSONB,
    state_bytes BYTEA,
    state_version INTEGER NOT NULL,
    last_event_sequence BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CHECK ((state IS NULL) <> (state_bytes IS NULL))
);
CREATE INDEX event_snapshots_aggregate ON event_snapshots (aggregate_type, aggregate_id, version);
COMMENT ON TABLE event_snapshots IS
    'Kept states of aggregates, as they were at a version; the log may hold several of one version';
COMMENT ON COLUMN event_snapshots.state_bytes IS 'the state where JSONB cannot hold it';
