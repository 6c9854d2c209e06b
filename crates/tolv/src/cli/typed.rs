//! Words of the command line as what they mean.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use tolv_model::name::{AppName, Deploy as DeployPath, DeployError, DeployName};

/// A deploy as it may be typed: `shop/staging`, `shop` for its production, or `local` for what
/// `tolv up` runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// On a platform.
    Deploy(DeployPath),
    /// Here.
    Local,
}

impl FromStr for Named {
    type Err = DeployError;

    fn from_str(text: &str) -> Result<Self, DeployError> {
        if text == DeployName::local().as_str() {
            return Ok(Self::Local);
        }
        match text.contains('/') {
            true => text.parse().map(Self::Deploy),
            false => {
                let app: AppName = text.parse()?;
                Ok(Self::Deploy(DeployPath { app, name: DeployName::production() }))
            }
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy(deploy) => deploy.fmt(f),
            Self::Local => DeployName::local().fmt(f),
        }
    }
}

/// Reads `30d`, `12h`, `15m` or `90s` as seconds.
pub(crate) fn duration(text: &str) -> Result<u32, String> {
    let bad = || format!("`{text}` is not a time such as 30d, 12h or 15m");
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds: u32 = match unit {
        'd' => 86_400,
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return Err(bad()),
    };
    let count: u32 = text[..text.len() - 1].parse().map_err(|_| bad())?;
    count.checked_mul(seconds).filter(|&seconds| seconds > 0).ok_or_else(bad)
}

/// A moment: RFC 3339, or how long ago, as `10m`, `2h` or `3d`.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let ago = duration(text).map_err(|_| {
        format!("`{text}` is neither a moment, as 2026-01-31T12:00:00Z, nor a time ago, as 10m")
    })?;
    Ok(Timestamp::now() - jiff::SignedDuration::from_secs(ago.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("30d"), Ok(2_592_000));
        assert_eq!(duration("15m"), Ok(900));
        for bad in ["", "d", "30", "0d", "-1d", "30x", "99999999d", "3ü"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_app_alone_means_its_production() {
        assert_eq!("shop".parse::<Named>().unwrap().to_string(), "shop/production");
        assert_eq!("shop/staging".parse::<Named>().unwrap().to_string(), "shop/staging");
        assert_eq!("local".parse::<Named>().unwrap(), Named::Local);
        assert!("Shop".parse::<Named>().is_err());
        assert!("shop/../x".parse::<Named>().is_err());
    }
}
