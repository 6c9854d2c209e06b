//! The hook `proc-receive`: a small program between `git receive-pack` and the platform.
//!
//! receive-pack hands every ref of a push to it instead of moving them itself. It passes them on
//! to the platform over the socket named in `TOLV_PUSH`, where it first says the secret that it has in
//! `TOLV_PUSH_SECRET`, shows what the platform says (which git
//! shows to the pusher behind `remote:`), and reports what became of each ref.
//!
//! Source: `gitprotocol-pack`'s pkt-line, and `proc-receive` in `githooks`.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::plan::RefCommand;

/// The hook's name, and so that of the program when it is one.
pub const HOOK: &str = "proc-receive";

/// No object.
pub(crate) const NULL: &str = "0000000000000000000000000000000000000000";

/// What the hook asks: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) commands: Vec<RefCommand>,
    pub(super) options: Vec<String>,
}

/// Most bytes of it.
pub(super) const MAX_ASKED: u64 = 16 << 20;
/// Most refs of one push, and bytes of what git says of them: what longer names take, no ref may have.
pub(super) const MAX_COMMANDS: usize = 10_000;
pub(super) const MAX_COMMAND_BYTES: usize = 4 << 20;
/// Most options of one push, and bytes of each.
const MAX_OPTIONS: usize = 100;

impl Asked {
    /// Reads what a hook says. The hook runs beside a git that strangers talk to, so that nothing
    /// of it is believed.
    pub(super) fn parse(line: &[u8]) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let asked: Self = serde_json::from_slice(line)?;
        let is_object = |id: &Option<String>| {
            id.as_ref().is_none_or(|id| {
                matches!(id.len(), 40 | 64)
                    && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
        };
        let is_name = |name: &str| {
            name.starts_with("refs/")
                && name.len() <= 4096
                && !name.contains("..")
                && !name.chars().any(|c| c.is_control() || c == ' ')
        };
        if asked.commands.len() > MAX_COMMANDS {
            return Err(bad("more refs than a push may have"));
        }
        if !asked
            .commands
            .iter()
            .all(|c| is_name(&c.name) && is_object(&c.old) && is_object(&c.new))
        {
            return Err(bad("a ref that git would not have let through"));
        }
        if asked.options.len() > MAX_OPTIONS || asked.options.iter().any(|o| o.len() > 1000) {
            return Err(bad("more options than a push may have"));
        }
        Ok(asked)
    }
}

/// What it is told: lines of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Told {
    /// For the pusher to see.
    Say(String),
    /// The end: each ref, with the reason where it was refused.
    Results(Vec<(String, Option<String>)>),
}

/// The hook's whole life, on standard input and output. Gives the exit status.
///
/// `socket` is the value of `TOLV_PUSH`, `secret` that of `TOLV_PUSH_SECRET`.
pub fn hook(socket: Option<&Path>, secret: Option<&str>) -> u8 {
    let (Some(socket), Some(secret)) = (socket, secret) else {
        say("this repository is pushed to through `tolv serve` alone");
        return 1;
    };
    let connect = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(secret.as_bytes())?;
        Ok(stream)
    };
    let done = connect()
        .and_then(|stream| relay(stream, &mut io::stdin().lock(), &mut io::stdout().lock()));
    match done {
        Ok(()) => 0,
        Err(error) => {
            say(&format!("the platform cannot be reached: {error}"));
            1
        }
    }
}

fn say(text: &str) {
    // Whoever pushed may be gone.
    writeln!(io::stderr(), "{text}").ok();
}

fn relay(stream: UnixStream, input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let hello = read_packets(input)?;
    let features = hello.first().map(Vec::as_slice).unwrap_or_default();
    let wants = |feature: &[u8]| {
        let words = features.split(|&byte| byte == 0 || byte == b' ' || byte == b'\n');
        words.into_iter().any(|word| word == feature)
    };
    if !features.starts_with(b"version=1") {
        return Err(io::Error::other("git speaks another version of this hook"));
    }
    let has_options = wants(b"push-options");
    write_packet(output, if has_options { b"version=1\0push-options" } else { b"version=1" })?;
    flush(output)?;
    let commands = read_packets(input)?;
    let options = if has_options { read_packets(input)? } else { Vec::new() };
    let asked = Asked {
        commands: commands.iter().filter_map(|line| command(line)).collect(),
        options: options.iter().map(|line| text(line)).collect(),
    };
    let mut line = serde_json::to_vec(&asked)?;
    line.push(b'\n');
    (&stream).write_all(&line)?;
    let mut told = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if told.read_line(&mut line)? == 0 {
            return Err(io::Error::other("it has ended; nothing was moved"));
        }
        match serde_json::from_str(&line)? {
            Told::Say(text) => say(&text),
            Told::Results(results) => {
                for (name, refused) in results {
                    let report = match refused {
                        None => format!("ok {name}"),
                        Some(reason) => format!("ng {name} {reason}"),
                    };
                    write_packet(output, report.as_bytes())?;
                }
                return flush(output);
            }
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches('\n').to_owned()
}

/// `<old> <new> <name>`.
fn command(line: &[u8]) -> Option<RefCommand> {
    let line = text(line);
    let mut words = line.splitn(3, ' ');
    let (old, new, name) = (words.next()?, words.next()?, words.next()?);
    let object = |id: &str| (id != NULL).then(|| id.to_owned());
    Some(RefCommand { name: name.to_owned(), old: object(old), new: object(new) })
}

/// Packets up to the next flush.
fn read_packets(input: &mut impl Read) -> io::Result<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    loop {
        let mut head = [0; 4];
        input.read_exact(&mut head)?;
        let bad = || io::Error::other("a packet without a length");
        let length = std::str::from_utf8(&head).map_err(|_| bad())?;
        match usize::from_str_radix(length, 16).map_err(|_| bad())? {
            0 => return Ok(packets),
            length @ 4.. => {
                let mut packet = vec![0; length - 4];
                input.read_exact(&mut packet)?;
                packets.push(packet);
            }
            _ => return Err(bad()),
        }
    }
}

fn write_packet(output: &mut impl Write, line: &[u8]) -> io::Result<()> {
    // A reason of a megabyte would be no reason.
    let line = line.get(..60_000).unwrap_or(line);
    write!(output, "{:04x}", line.len() + 5)?;
    output.write_all(line)?;
    output.write_all(b"\n")
}

fn flush(output: &mut impl Write) -> io::Result<()> {
    output.write_all(b"0000")?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn packet(line: &[u8]) -> Vec<u8> {
        [format!("{:04x}", line.len() + 4).as_bytes(), line].concat()
    }

    #[test]
    fn refs_go_to_the_platform_and_results_come_back() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let new = "a".repeat(40);
        let mut input = packet(b"version=1\0push-options atomic\n");
        input.extend(b"0000");
        input.extend(packet(format!("{NULL} {new} refs/heads/main\n").as_bytes()));
        input.extend(packet(format!("{new} {NULL} refs/heads/a b\n").as_bytes()));
        input.extend(b"0000");
        input.extend(packet(b"new-root"));
        input.extend(b"0000");
        let platform = thread::spawn(move || {
            let mut lines = BufReader::new(&ours);
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            let asked: Asked = serde_json::from_str(&line).unwrap();
            let told = Told::Results(vec![
                ("refs/heads/main".to_owned(), None),
                ("refs/heads/a b".to_owned(), Some("not that".to_owned())),
            ]);
            let mut line = serde_json::to_vec(&told).unwrap();
            line.push(b'\n');
            (&ours).write_all(&line).unwrap();
            asked
        });
        let mut output = Vec::new();
        relay(theirs, &mut input.as_slice(), &mut output).unwrap();
        let asked = platform.join().unwrap();
        assert_eq!(asked.options, ["new-root"]);
        assert_eq!(asked.commands[0].new.as_deref(), Some(&*new));
        assert_eq!(asked.commands[0].old, None);
        assert_eq!(
            (asked.commands[1].name.as_str(), &asked.commands[1].new),
            ("refs/heads/a b", &None)
        );
        assert_eq!(
            String::from_utf8(output).unwrap(),
            "001bversion=1\0push-options\n0000\
             0017ok refs/heads/main\n001fng refs/heads/a b not that\n0000"
        );
    }

    #[test]
    fn what_a_hook_says_is_checked() {
        let id = "a".repeat(40);
        let says = |name: &str, new: &str| {
            let command = RefCommand { name: name.into(), old: None, new: Some(new.into()) };
            let asked = Asked { commands: vec![command], options: Vec::new() };
            Asked::parse(&serde_json::to_vec(&asked).unwrap())
        };
        assert!(says("refs/heads/main", &id).is_ok());
        for (name, new) in [
            ("refs/heads/main", "--stdin"),
            ("refs/heads/main", "HEAD"),
            ("refs/heads/main", ""),
            ("--stdin", &*id),
            ("HEAD", &id),
            ("refs/../x", &id),
            ("refs/heads/a\nb", &id),
        ] {
            assert!(says(name, new).is_err(), "{name} {new}");
        }
        assert!(Asked::parse(b"nonsense").is_err());
        let many = (0..101).map(|_| "o".to_owned()).collect();
        let asked = Asked { commands: Vec::new(), options: many };
        assert!(Asked::parse(&serde_json::to_vec(&asked).unwrap()).is_err());
    }

    #[test]
    fn a_platform_that_goes_away_moves_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        let mut input = packet(b"version=1\n");
        input.extend(b"00000000");
        let mut output = Vec::new();
        assert!(relay(theirs, &mut input.as_slice(), &mut output).is_err());
        assert!(!String::from_utf8_lossy(&output).contains("ok"));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [&b""[..], b"zzzz", b"0001", b"0009ver", b"0010version=2\n0000"] {
            let (_ours, theirs) = UnixStream::pair().unwrap();
            assert!(relay(theirs, &mut &*bad, &mut Vec::new()).is_err());
        }
    }
}
