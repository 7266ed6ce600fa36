-- Prefect's own database beside the desk's ledger; run once, when the volume is new.
CREATE DATABASE prefect;
