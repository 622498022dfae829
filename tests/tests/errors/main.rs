//! `docs/errors.md` says what the code says, and every code in it has its evidence: a test that provokes it, or where it comes
//! from. Causes that no other test has a reason to provoke are provoked here.

mod agent_doctor;
mod evidence;
mod faults;
mod kdcs;
mod networks;
mod page;
mod sources;
mod texts;
