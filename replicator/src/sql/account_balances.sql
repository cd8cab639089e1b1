INSERT INTO account_balances AS b (account_id, currency, balance, updated_at)
SELECT account_id, currency, balance::numeric, updated_at
  FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
           AS n(account_id, currency, balance, updated_at)
ON CONFLICT (account_id, currency) DO UPDATE SET
    balance = b.balance + excluded.balance,
    updated_at = excluded.updated_at
