//! The installation, and what is done to it: a schedule that a seed draws.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lictor_tests::{Agent, Cut, Direction, PASSWORD, Proxy, Random, Stack, Windows, WindowsOptions};
use serde_json::json;

use crate::work::Place;

/// Everything that runs.
pub(crate) struct Fleet {
    pub(crate) stack: Stack,
    pub(crate) agents: Vec<Agent>,
    states: Vec<State>,
    control_plane_down: bool,
    /// Between each agent and the control plane.
    links: Vec<Proxy>,
    pub(crate) hosts: Vec<Windows>,
    /// Between the agents and some hosts.
    roads: Vec<Proxy>,
    pub(crate) places: Vec<Place>,
    /// What is to happen when.
    later: Vec<(Instant, Later)>,
    /// How often what was done.
    pub(crate) done: BTreeMap<&'static str, u32>,
    pub(crate) violations: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Down,
    Draining { since: Instant },
}

#[derive(Debug, Clone, Copy)]
enum Later {
    StartAgent(usize),
    StartControlPlane,
    HealLink(usize),
    HealRoad(usize),
}

impl Fleet {
    /// Starts one control plane, agents and hosts, and waits until all of them are ready.
    pub(crate) fn start(agents: usize, hosts: usize) -> Result<Self> {
        let stack = Stack::start(&[
            ("LICTOR_CONTROL_PLANE_LEASE", "5s"),
            ("LICTOR_CONTROL_PLANE_HEARTBEAT_INTERVAL", "1s"),
            ("LICTOR_CONTROL_PLANE_LOST_WAIT", "4s"),
            ("LICTOR_CONTROL_PLANE_RESTART_GRACE", "5s"),
        ])?;
        let ca = stack.certificates.ca.display().to_string();
        stack.credential("ntlm", PASSWORD, &["--auth", "negotiate", "--scheme", "http"])?;
        stack.credential("basic", PASSWORD, &["--auth", "basic", "--scheme", "https", "--host-ca", &ca])?;
        let mut fleet = Self {
            stack,
            agents: Vec::new(),
            states: Vec::new(),
            control_plane_down: false,
            links: Vec::new(),
            hosts: Vec::new(),
            roads: Vec::new(),
            places: Vec::new(),
            later: Vec::new(),
            done: BTreeMap::new(),
            violations: Vec::new(),
        };
        for index in 0..hosts {
            // Every fourth listens on TLS, every third is behind a proxy.
            let tls = index % 4 == 3;
            let auth = if tls { "basic" } else { "ntlm,negotiate" };
            let options = WindowsOptions { tls, arguments: &["--auth", auth], ..WindowsOptions::default() };
            let host = fleet.stack.windows(&format!("host-{index}"), &options)?;
            let mut port: u16 = host.port.parse()?;
            if index % 3 == 0 {
                let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port)))?;
                port = proxy.address().port();
                fleet.roads.push(proxy);
            }
            fleet.places.push(Place { port, tls });
            fleet.hosts.push(host);
        }
        for index in 0..agents {
            let link = Proxy::start(fleet.stack.control_plane.address.parse()?)?;
            let server = format!("https://{}", link.address());
            let name = agent_name(index);
            let environment = [
                ("LICTOR_AGENT_CONTROL_PLANE", server.as_str()),
                ("LICTOR_AGENT_TAGS", name.as_str()),
                ("LICTOR_AGENT_SLOTS", "8"),
                ("LICTOR_AGENT_DRAIN_GRACE", "3s"),
            ];
            let agent = fleet.stack.agent(&name, &environment)?;
            fleet.agents.push(agent);
            fleet.states.push(State::Up);
            fleet.links.push(link);
        }
        Ok(fleet)
    }

    /// Does something that the random numbers choose.
    pub(crate) fn disturb(&mut self, random: &mut Random) -> Result<()> {
        let agent = random.below(self.agents.len() as u64) as usize;
        let host = random.below(self.hosts.len() as u64) as usize;
        let road = random.below(self.roads.len() as u64) as usize;
        let way = *random.pick(&[Direction::Up, Direction::Down]);
        let how = *random.pick(&[Cut::Close, Cut::Reset]);
        let cut = if how == Cut::Close { "close" } else { "reset" };
        let brief = Duration::from_millis(random.between(200, 3000));
        let long = Duration::from_millis(random.between(1000, 9000));
        let bytes = random.between(1, 20_000);
        let now = Instant::now();
        let name = match random.below(100) {
            0..9 if self.states[agent] == State::Up => {
                self.agents[agent].process.kill()?;
                self.states[agent] = State::Down;
                self.later.push((now + brief, Later::StartAgent(agent)));
                "kill -9 of an agent"
            }
            9..14 if self.states[agent] == State::Up => {
                self.agents[agent].process.terminate()?;
                self.states[agent] = State::Draining { since: now };
                "SIGTERM to an agent"
            }
            14..20 if !self.control_plane_down => {
                self.stack.control_plane.kill()?;
                self.control_plane_down = true;
                self.later.push((now + brief, Later::StartControlPlane));
                "kill -9 of the control plane"
            }
            20..30 => {
                self.links[agent].cut(how);
                "link cut"
            }
            30..38 => {
                self.links[agent].cut_after(way, bytes, how);
                "link cut after some bytes"
            }
            38..43 => {
                self.links[agent].stall(way, true);
                self.later.push((now + long, Later::HealLink(agent)));
                "link stalled one way"
            }
            43..47 => {
                self.links[agent].black_hole(true);
                self.later.push((now + long, Later::HealLink(agent)));
                "link in a black hole"
            }
            47..50 => {
                self.links[agent].delay(Duration::from_millis(100));
                self.later.push((now + long, Later::HealLink(agent)));
                "link delayed"
            }
            50..53 => {
                self.links[agent].refuse(true);
                self.links[agent].cut(how);
                self.later.push((now + brief, Later::HealLink(agent)));
                "link refused"
            }
            53..55 => {
                self.links[agent].half_close(way);
                "link half closed"
            }
            55..63 => {
                self.roads[road].cut(how);
                "host connections cut"
            }
            63..71 => {
                self.roads[road].cut_after(way, bytes, how);
                "host connection cut after some bytes"
            }
            71..75 => {
                self.roads[road].stall(way, true);
                self.later.push((now + brief, Later::HealRoad(road)));
                "host connections stalled"
            }
            75..77 => {
                self.roads[road].black_hole(true);
                self.later.push((now + long, Later::HealRoad(road)));
                "host in a black hole"
            }
            77..79 => {
                self.roads[road].half_close(way);
                "host connections half closed"
            }
            79..90 => {
                let order = json!({"reboot": {"cut": cut, "refuse": "500ms", "unavailable": "500ms"}});
                self.hosts[host].order(&order)?;
                "host reboot"
            }
            90..95 => {
                self.hosts[host].order(&json!({"restart-service": {"cut": cut, "unavailable": "500ms"}}))?;
                "host service restart"
            }
            95..98 => {
                self.hosts[host]
                    .order(&json!({"drop": {"answer": {"operation": "Command", "after": 10, "cut": cut}}}))?;
                "answer to Command dropped"
            }
            98..100 => {
                self.hosts[host]
                    .order(&json!({"drop": {"answer": {"operation": "Create", "after": 10, "cut": cut}}}))?;
                "answer to Create dropped"
            }
            _ => return Ok(()),
        };
        *self.done.entry(name).or_default() += 1;
        Ok(())
    }

    /// Does what is due, and looks whether anybody has died who should not.
    pub(crate) fn tend(&mut self) -> Result<()> {
        let now = Instant::now();
        let (due, later) = self.later.drain(..).partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Instant, Later)> = due;
        for (_, what) in due {
            match what {
                Later::StartAgent(agent) => self.start_agent(agent)?,
                Later::StartControlPlane => {
                    self.stack.control_plane.restart()?;
                    self.control_plane_down = false;
                }
                Later::HealLink(agent) => self.links[agent].heal(),
                Later::HealRoad(road) => self.roads[road].heal(),
            }
        }
        for agent in 0..self.agents.len() {
            let ended = self.agents[agent].process.ended()?;
            match (self.states[agent], ended) {
                (State::Up, Some(status)) => {
                    self.violations.push(format!("{} ended by itself with {status}", agent_name(agent)));
                    self.start_agent(agent)?;
                }
                (State::Draining { .. }, Some(status)) => {
                    if status.code() != Some(0) {
                        self.violations.push(format!("{} drained, and ended with {status}", agent_name(agent)));
                    }
                    self.start_agent(agent)?;
                }
                (State::Draining { since }, None) if since.elapsed() > DRAIN => {
                    self.violations.push(format!("{} still drains after {DRAIN:?}", agent_name(agent)));
                    self.agents[agent].process.kill()?;
                    self.start_agent(agent)?;
                }
                _ => {}
            }
        }
        if !self.control_plane_down
            && let Some(status) = self.stack.control_plane.process.ended()?
        {
            self.violations.push(format!("the control plane ended by itself with {status}"));
            self.stack.control_plane.restart()?;
        }
        Ok(())
    }

    fn start_agent(&mut self, agent: usize) -> Result<()> {
        self.agents[agent].restart()?;
        self.states[agent] = State::Up;
        Ok(())
    }

    /// Faults end: everything runs and everything passes.
    pub(crate) fn heal(&mut self) -> Result<()> {
        self.links.iter().chain(&self.roads).for_each(Proxy::heal);
        self.hosts.iter().try_for_each(|host| host.order(&json!("ready")))?;
        for (at, _) in &mut self.later {
            *at = Instant::now();
        }
        self.tend()
    }

    /// kill -9 of every agent, and a new process for each.
    pub(crate) fn replace_agents(&mut self) -> Result<()> {
        for agent in 0..self.agents.len() {
            self.agents[agent].process.kill()?;
            self.start_agent(agent)?;
        }
        self.agents.iter_mut().try_for_each(Agent::wait_connected)
    }

    /// SIGTERM to every agent; each must end well.
    pub(crate) fn stop_agents(&mut self) -> Result<()> {
        self.agents.iter().try_for_each(|agent| agent.process.terminate())?;
        for (index, agent) in self.agents.iter_mut().enumerate() {
            let status = agent.process.wait(DRAIN).with_context(|| agent_name(index))?;
            if status.code() != Some(0) {
                self.violations.push(format!("{} ended with {status} at the end", agent_name(index)));
            }
        }
        Ok(())
    }

    /// The processes that belong here.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let agents = self.agents.iter().map(|agent| agent.process.pid());
        let hosts = self.hosts.iter().map(|host| host.process.pid());
        agents.chain(hosts).chain([self.stack.control_plane.process.pid()]).collect()
    }
}

pub(crate) fn agent_name(index: usize) -> String {
    format!("agent-{index}")
}

/// Drain grace, stopping of commands, and delivery while the control plane is perhaps not there.
const DRAIN: Duration = Duration::from_secs(60);
