//! The agent in this process against a control plane played by the test. What runs on hosts is tested end to end
//! elsewhere; here the hosts refuse or keep silent.

#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod codes;
#[cfg(test)]
mod control_plane;
#[cfg(test)]
mod secrets;
