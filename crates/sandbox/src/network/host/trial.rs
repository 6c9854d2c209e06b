//! Whether a packet of an app gets through this machine, found out by sending one.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::thread::{UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::super::link::{self, ADDRESSES, Link};
use super::super::{home, visit};
use super::table::not_forwarded;
use super::{HostNetwork, START_WAIT, TRIES, random};
use crate::level::Reason;

/// For a packet of the trial to come through a machine that lets it.
const TRIAL: Duration = Duration::from_secs(2);
/// Until the trial's packet is sent again.
const RESEND: Duration = Duration::from_millis(100);
/// Where the trial's packet goes: nobody on the internet has it.
const TRIAL_TARGET: [u8; 3] = [203, 0, 113];

impl HostNetwork {
    /// A packet from a namespace through the machine to another one, which stands for the internet,
    /// and its answer.
    pub(super) fn trial(&mut self) -> Result<(), Reason> {
        let failed = |stage: &'static str| {
            move |error: io::Error| Reason::io(format!("trial: {stage}"), &error)
        };
        let app = namespace().map_err(failed("make a network namespace"))?;
        let internet = namespace().map_err(failed("make a network namespace"))?;
        self.settle(START_WAIT);
        let link = self.connect(&app)?;
        visit(&app, || Ok(link.enter())).map_err(failed("enter a namespace"))??;
        let mut done = Err(Reason::new("trial", libc::EEXIST));
        for _ in 0..TRIES {
            done = self.trial_between(&app, &internet);
            // Another spawner is at its own, with the same address.
            if done.as_ref().err().is_none_or(|reason| reason.errno != libc::EEXIST) {
                break;
            }
        }
        done
    }

    fn trial_between(&self, app: &fs::File, internet: &fs::File) -> Result<(), Reason> {
        // The other one is no namespace of an app, and has an address of the internet's.
        let number = random();
        let outside = format!("to{number:08x}");
        let there = Link { number: number % ADDRESSES, v6: false, mtu: self.mtu };
        let target = Ipv4Addr::from([
            TRIAL_TARGET[0],
            TRIAL_TARGET[1],
            TRIAL_TARGET[2],
            2 + u8::try_from(number % 126).unwrap_or(0) * 2,
        ]);
        there.make_unrouted(&self.netlink, &outside, internet.as_fd())?;
        let done = self.send_through(app, internet, (there, &outside), target);
        link::remove(&self.netlink, &outside).ok();
        done
    }

    fn send_through(
        &self,
        app: &fs::File,
        internet: &fs::File,
        (there, outside): (Link, &str),
        target: Ipv4Addr,
    ) -> Result<(), Reason> {
        let failed = |stage: &'static str| {
            move |error: io::Error| Reason::io(format!("trial: {stage}"), &error)
        };
        let ours = Ipv4Addr::from(u32::from(target) + 1);
        link::set_address(&self.netlink, outside, &ours.octets()).map_err(failed("address"))?;
        link::set_route(&self.netlink, outside, &target.octets()).map_err(failed("route"))?;
        let receiver = visit(internet, || {
            let entered = there.enter_as(&target.octets());
            entered.map_err(|reason| io::Error::other(reason.to_string()))?;
            UdpSocket::bind((target, 0))
        });
        let receiver = receiver.map_err(failed("listen"))?;
        let sender =
            visit(app, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).map_err(failed("bind"))?;
        receiver.set_read_timeout(Some(RESEND)).map_err(failed("time-out"))?;
        sender.set_read_timeout(Some(RESEND)).map_err(failed("time-out"))?;
        let to = receiver.local_addr().map_err(failed("address"))?;
        let until = Instant::now() + TRIAL;
        let mut byte = [0];
        // One packet may be lost while the interfaces come up.
        while Instant::now() < until {
            sender.send_to(b"?", to).map_err(failed("send"))?;
            let Ok((_, from)) = receiver.recv_from(&mut byte) else { continue };
            receiver.send_to(b"!", from).map_err(failed("answer"))?;
            if sender.recv_from(&mut byte).is_ok() {
                return Ok(());
            }
        }
        Err(Reason::new(not_forwarded(), 0))
    }
}

/// A new network namespace.
fn namespace() -> io::Result<fs::File> {
    let home = home()?;
    #[expect(unsafe_code, reason = "unshare is unsafe for what other flags do")]
    // SAFETY: a network namespace has no memory and no descriptors of this process.
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNET)?;
    }
    let made = fs::File::open("/proc/thread-self/ns/net");
    let network = Some(rustix::thread::LinkNameSpaceType::Network);
    if move_into_link_name_space(home.as_fd(), network).is_err() {
        std::process::abort();
    }
    made
}
