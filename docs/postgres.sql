-- The database of Tiphys in split mode: one user who owns the tables, one for each role, who owns
-- nothing. Run it once, as a superuser, with psql and a password for each:
--   psql -v owner=... -v gateway=... -v agents=... -v launcher=... -f docs/postgres.sql
-- `tiphys migrate`, with the owner's URL, then makes the tables and grants each role its rights.
\set ON_ERROR_STOP on
CREATE USER tiphys_owner PASSWORD :'owner';
CREATE USER tiphys_gateway PASSWORD :'gateway';
CREATE USER tiphys_agents PASSWORD :'agents';
CREATE USER tiphys_launcher PASSWORD :'launcher';
CREATE DATABASE tiphys OWNER tiphys_owner;
REVOKE ALL ON DATABASE tiphys FROM PUBLIC;
GRANT CONNECT ON DATABASE tiphys TO tiphys_gateway, tiphys_agents, tiphys_launcher;
