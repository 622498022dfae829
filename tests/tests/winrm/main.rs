//! `lictor-winrm` against simulated Windows hosts in this process: what happens when connections break.

mod cut;
mod kill_loops;
