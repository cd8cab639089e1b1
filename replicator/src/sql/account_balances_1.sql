CREATE TABLE account_balances (
    account_id VARCHAR(255) NOT NULL,
    currency VARCHAR(3) NOT NULL,
    balance NUMERIC NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (account_id, currency)
);
COMMENT ON TABLE account_balances IS
    'balance is in minor units of the currency: payments, credits and adjustments less charges and '
    'refunds';

CREATE TABLE financial_totals (
    day DATE NOT NULL,
    currency VARCHAR(3) NOT NULL,
    kind VARCHAR(30) NOT NULL,
    events BIGINT NOT NULL,
    minor_units NUMERIC NOT NULL,
    PRIMARY KEY (day, currency, kind)
);
COMMENT ON TABLE financial_totals IS 'What was moved, asked for or failed on a day (UTC), by kind';
