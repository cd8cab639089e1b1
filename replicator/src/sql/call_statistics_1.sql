CREATE TABLE call_statistics (
    day DATE NOT NULL,
    direction VARCHAR(10) NOT NULL,
    outcome VARCHAR(20) NOT NULL,
    calls BIGINT NOT NULL,
    duration_ns NUMERIC NOT NULL,
    PRIMARY KEY (day, direction, outcome)
);
COMMENT ON TABLE call_statistics IS
    'Calls that ended on a day (UTC): as they completed, or failed. direction is unknown for a call '
    'that was never attempted';

CREATE TABLE call_check_statistics (
    day DATE NOT NULL,
    direction VARCHAR(10) NOT NULL,
    check_type VARCHAR(255) NOT NULL,
    checks BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    duration_ns NUMERIC NOT NULL,
    PRIMARY KEY (day, direction, check_type)
);
COMMENT ON TABLE call_check_statistics IS
    'Compliance checks made on a day (UTC) before calls, and how many of them failed';

CREATE TABLE call_directions (
    call_id VARCHAR(255) PRIMARY KEY,
    direction VARCHAR(10) NOT NULL
);
COMMENT ON TABLE call_directions IS
    'Calls that were attempted and have not ended: where call_statistics has their direction from';
