//! Rust: a copy of what a build needs of the machine's toolchain: rustup's, or the system's packages.
//!
//! No registry has it: what is missing is told with the command that installs it.

use std::path::{Path, PathBuf};

use super::Toolchains;
use super::copy::Files;
use super::store::Kept;
use crate::Error;
use crate::plan::Toolchain;

/// What a codebase says about its Rust.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RustWish<'a> {
    /// `1.90`, `stable`, of `rust-toolchain.toml`.
    pub channel: Option<&'a str>,
    /// The file that names it.
    pub from: &'a str,
    /// `rust-version` of `Cargo.toml`.
    pub oldest: Option<&'a str>,
}

/// A Rust, ready to be run in a build.
#[derive(Clone, Debug)]
pub(crate) struct Rust {
    /// As it calls itself.
    pub version: String,
    /// What has to be mounted.
    pub mount: Toolchain,
    /// Where it has libraries that it does not find by itself, as a process sees it.
    pub libraries: Option<PathBuf>,
}

/// A toolchain of the machine.
#[derive(Debug)]
struct Found {
    version: String,
    host: String,
    sysroot: PathBuf,
}

impl Toolchains<'_> {
    /// The toolchain that a codebase asks for, or the machine's own. The same wish gets the same
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] with what was wanted, what was found and what to do.
    pub(crate) fn rust(&mut self, wanted: &RustWish<'_>) -> Result<Rust, Error> {
        let names = [wanted.channel.unwrap_or_default(), wanted.oldest.unwrap_or_default()];
        let wish = format!("rust {}", names.join(" >=").trim_end_matches(" >="));
        if let Some(kept) = self.chosen(wish.trim_end(), |_| true)? {
            return Ok(self.placed_rust(kept));
        }
        let found = self.machine_rust(wanted)?;
        if let Some(oldest) = wanted.oldest
            && numbers(&found.version) < numbers(oldest)
        {
            return Err(Error::Toolchain {
                what: format!("Rust {oldest} (`rust-version` of Cargo.toml)"),
                why: format!("Rust {} was taken ({})", found.version, found.sysroot.display()),
                help: format!(
                    "run `rustup toolchain install {oldest}` on this machine, and name it in \
                     `rust-toolchain.toml`: `toolchain.channel = \"{oldest}\"`"
                ),
            });
        }
        let kept = self.copy_rust(&found)?;
        self.store().choose(wish.trim_end(), &kept)?;
        Ok(self.placed_rust(kept))
    }

    fn placed_rust(&self, kept: Kept) -> Rust {
        let target = self.place(&format!("rust-{}", kept.version), &kept.folder);
        Rust {
            libraries: kept.made.has_libraries.then(|| target.join("lib")),
            mount: Toolchain {
                version: format!("rust {}", kept.version),
                source: kept.folder,
                target,
                at_run: false,
            },
            version: kept.version,
        }
    }

    fn machine_rust(&self, wanted: &RustWish<'_>) -> Result<Found, Error> {
        let named = wanted.channel.map(|channel| format!("{channel} ({})", wanted.from));
        let what = format!("Rust {}", named.unwrap_or_default()).trim_end().to_owned();
        let mut had = Vec::new();
        let mut host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let rustup = self.user_home.iter().map(|home| home.join(".cargo/bin/rustc"));
        let mut programs: Vec<PathBuf> = rustup.filter(|path| path.is_file()).collect();
        programs.extend(self.installed("rustc"));
        for rustc in programs {
            let Ok(sysroot) = self.output(&rustc, &["--print", "sysroot"]) else { continue };
            let sysroot = PathBuf::from(sysroot);
            let Some((version, triple)) = about(self, &sysroot.join("bin/rustc"))? else {
                continue;
            };
            let fits = wanted.channel.is_none_or(|channel| is_of(channel, &version));
            if fits && sysroot.join("bin/cargo").is_file() {
                return Ok(Found { version, host: triple, sysroot });
            }
            had.push(version);
            host = triple;
        }
        if let Some(channel) = wanted.channel {
            for sysroot in installed(self, channel, &host) {
                if let Some((version, host)) = about(self, &sysroot.join("bin/rustc"))? {
                    return Ok(Found { version, host, sysroot });
                }
            }
        }
        let why = match had.as_slice() {
            [] => "there is no `rustc` with its `cargo` in ~/.cargo/bin or /usr".to_owned(),
            had => format!("this machine has {}", had.join(", ")),
        };
        let help = match wanted.channel {
            Some(channel) => format!("install it: `rustup toolchain install {channel}`"),
            None => "install it: `apt-get install cargo`, or https://rustup.rs".to_owned(),
        };
        Err(Error::Toolchain { what, why, help })
    }

    /// A copy of compiler, cargo and the standard libraries.
    fn copy_rust(&mut self, found: &Found) -> Result<Kept, Error> {
        let Found { version, host, sysroot } = found;
        let mut files = Files::default();
        for name in ["bin/cargo", "bin/rustc"] {
            files.add(&sysroot.join(name), name);
        }
        // The compiler itself is a library beside the others, in one of the system's folders too.
        let multiarch = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
        for folder in ["lib", "lib64", &multiarch] {
            for entry in std::fs::read_dir(sysroot.join(folder)).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let own = ["librustc_driver-", "libstd-", "libtest-"];
                let own =
                    own.iter().any(|own| name.starts_with(own)) || name.starts_with("libLLVM");
                let system = ["/usr", "/usr/local"].iter().any(|path| sysroot == Path::new(path));
                if name.contains(".so") && own && !(system && name.starts_with("libLLVM")) {
                    files.add(&entry.path(), format!("lib/{name}"));
                }
            }
        }
        let libraries = Path::new("lib/rustlib");
        for entry in std::fs::read_dir(sysroot.join(libraries)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            for part in ["lib", "bin"].map(|part| libraries.join(&name).join(part)) {
                // The host's, and those of other targets.
                files.add_all(&sysroot.join(&part), &part, &|_| true)?;
            }
        }
        self.copied(("rust", version), sysroot, &files, |chains, part| {
            let program = part.join("bin/rustc");
            let said = chains.output_with(&program, &["-vV"], &part.join("lib"))?;
            match said.contains(host.as_str()) {
                true => Ok(()),
                false => Err(Error::Step {
                    command: program.display().to_string(),
                    how: "does not run as a copy".to_owned(),
                    last: said.lines().map(str::to_owned).collect(),
                    help: None,
                }),
            }
        })
    }
}

/// A version's numbers: `1.80.1-nightly` has 1, 80 and 1.
fn numbers(version: &str) -> Vec<u32> {
    let plain = version.split('-').next().unwrap_or_default();
    plain.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// Version and host of a compiler; nothing where it is not there.
fn about(toolchains: &Toolchains<'_>, rustc: &Path) -> Result<Option<(String, String)>, Error> {
    if !rustc.is_file() {
        return Ok(None);
    }
    let said = toolchains.output(rustc, &["-vV"])?;
    let field = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Ok(field("release:").zip(field("host:")).map(|(v, h)| (v.to_owned(), h.to_owned())))
}

/// Whether a version is of a channel: `1.80` has `1.80.1`, `stable` all without `-nightly`.
fn is_of(channel: &str, version: &str) -> bool {
    let released = !version.contains('-');
    match channel {
        "stable" => released,
        "beta" | "nightly" => version.contains(&format!("-{channel}")),
        channel => {
            let below = version.strip_prefix(channel);
            released && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }
    }
}

/// The sysroots of a channel that rustup has installed, the newest first.
fn installed(toolchains: &Toolchains<'_>, channel: &str, host: &str) -> Vec<PathBuf> {
    let Some(home) = &toolchains.user_home else { return Vec::new() };
    let folder = home.join(".rustup/toolchains");
    let names = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> = names
        .filter(|name| {
            let Some(own) = name.strip_suffix(host).and_then(|rest| rest.strip_suffix('-')) else {
                return name == channel;
            };
            let numbered = channel.starts_with(|c: char| c.is_ascii_digit());
            own == channel || numbered && is_of(channel, own)
        })
        .collect();
    found.sort_by_key(|name| std::cmp::Reverse(numbers(name)));
    let cargo = |sysroot: &PathBuf| sysroot.join("bin/cargo").is_file();
    found.into_iter().map(|name| folder.join(name)).filter(cargo).collect()
}

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn channels_and_versions() {
        assert!(is_of("1.80", "1.80.1") && is_of("1.80.1", "1.80.1") && is_of("stable", "1.80.1"));
        assert!(is_of("nightly", "1.92.0-nightly") && is_of("beta", "1.92.0-beta.2"));
        for (channel, version) in [
            ("1.8", "1.80.1"),
            ("1.80.1", "1.80.2"),
            ("stable", "1.9.0-nightly"),
            ("nightly", "1.8.0"),
        ] {
            assert!(!is_of(channel, version), "{channel} {version}");
        }
    }
}
