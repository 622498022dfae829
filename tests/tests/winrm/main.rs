//! `lictor-winrm` against simulated Windows hosts in this process: what happens when connections break, time passes and hosts
//! restart.

mod crowds;
mod cut;
mod faults;
mod hosts;
mod idle;
mod kill_loops;
mod orphans;
mod outages;
