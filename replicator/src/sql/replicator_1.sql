CREATE TABLE event_subscriptions (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscriber_name VARCHAR(255) NOT NULL,
    event_type VARCHAR(100) NOT NULL,
    last_processed_sequence BIGINT NOT NULL DEFAULT 0,
    status VARCHAR(20) NOT NULL,
    error_count BIGINT NOT NULL DEFAULT 0,
    last_error TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    log_id UUID NOT NULL,
    epoch BIGINT NOT NULL DEFAULT 0,
    lag_events BIGINT NOT NULL DEFAULT 0,
    lag_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    events_per_second DOUBLE PRECISION NOT NULL DEFAULT 0,
    UNIQUE (subscriber_name, event_type)
) WITH (fillfactor = 50);
COMMENT ON TABLE event_subscriptions IS
    'Checkpoints: each projection has applied every event up to last_processed_sequence, once';

CREATE TABLE event_parked (
    subscriber_name VARCHAR(255) NOT NULL,
    sequence_number BIGINT NOT NULL,
    id UUID NOT NULL,
    aggregate_type VARCHAR(100) NOT NULL,
    aggregate_id VARCHAR(255) NOT NULL,
    event_type VARCHAR(100) NOT NULL,
    error TEXT NOT NULL,
    event BYTEA NOT NULL,
    parked_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (subscriber_name, sequence_number)
);
COMMENT ON TABLE event_parked IS
    'Events that a projection could not apply; event is the line of JSON that quipu export writes';
