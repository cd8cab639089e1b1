ALTER TABLE quipu_replicator_migrations ADD COLUMN IF NOT EXISTS made TEXT[];
COMMENT ON COLUMN quipu_replicator_migrations.made IS
    'Names of what was made; NULL where a program did not note them yet';
