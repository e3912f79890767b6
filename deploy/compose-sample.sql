-- The sample company's tables with five customers, as policies/catalog.yaml names them; PostgreSQL's image runs
-- it once. In production the records are there already and belong to others; the broker adds its guard alone.
CREATE ROLE crm_owner NOLOGIN NOSUPERUSER NOBYPASSRLS;
CREATE SCHEMA crm AUTHORIZATION crm_owner;
SET ROLE crm_owner;

CREATE TABLE crm.customer (
    customer_id bigint PRIMARY KEY, name text NOT NULL, company text, email text, phone text, birth_date date,
    street text, city text, postal_code text, country text, plan text, card_number text, iban text,
    device_model text, device_serial text, id_document text, notes text
);
CREATE TABLE crm.invoice (
    invoice_id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES crm.customer,
    invoice_date timestamptz NOT NULL, total numeric(10, 2) NOT NULL, status text NOT NULL
);
CREATE INDEX ON crm.invoice (customer_id);
CREATE TABLE crm.invoice_line (
    invoice_line_id bigint PRIMARY KEY, invoice_id bigint NOT NULL REFERENCES crm.invoice,
    description text NOT NULL, quantity integer NOT NULL, unit_price numeric(10, 2) NOT NULL
);
CREATE INDEX ON crm.invoice_line (invoice_id);

INSERT INTO crm.customer (customer_id, name, email, phone, city, country, plan)
SELECT n, 'Customer ' || n, 'customer' || n || '@example.com', '+1 555 010 000' || n, 'Springfield', 'US', 'basic'
FROM generate_series(1, 5) AS n;
INSERT INTO crm.invoice SELECT n, n, '2026-01-15T00:00:00Z', 49.90, 'paid' FROM generate_series(1, 5) AS n;
INSERT INTO crm.invoice_line SELECT n, n, 'One year of protection', 1, 49.90 FROM generate_series(1, 5) AS n;
RESET ROLE;
