-- A ledger each for the desks of the fill-probability ceremony; run once, when the volume is new.
CREATE DATABASE grinder;
CREATE DATABASE grinder_canary;
CREATE DATABASE grinder_control;
