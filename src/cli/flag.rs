//! Flags as data, in the syntax of the original: `--flag=value`, `--flag value`, `-flag=value`, and `_` for `-`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::util::{duration, go};

/// A flag of a subcommand.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// In lower case with dashes.
    pub name: &'static str,
    pub kind: Kind,
    /// In the syntax of the command line; empty for none.
    pub default: &'static str,
    pub help: &'static str,
    /// Older names.
    pub aliases: &'static [&'static str],
    pub status: Status,
}

/// Whether a flag has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Live,
    /// Without effect, for this reason: accepted with a warning.
    Obsolete(&'static str),
    /// Asks for a feature that km does not have, which must not be ignored: an error.
    Missing(&'static str),
}

/// The type of a flag's value; checked before anything starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--flag` alone means true.
    Bool,
    Text,
    /// Comma separated, and repeatable.
    List,
    Integer,
    Number,
    /// As in Go: `1m30s`.
    Duration,
    Ip,
    /// `lowest-highest`.
    PortRange,
}

impl Flag {
    pub const fn new(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Self {
        Self { name, kind, default, help, aliases: &[], status: Status::Live }
    }

    pub const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// A flag that is accepted without effect, for this reason.
    pub const fn obsolete(name: &'static str, kind: Kind, why: &'static str) -> Self {
        Self { name, kind, default: "", help: "", aliases: &[], status: Status::Obsolete(why) }
    }

    /// A flag that is rejected, because ignoring it would do harm.
    pub const fn missing(name: &'static str, kind: Kind, why: &'static str) -> Self {
        Self { name, kind, default: "", help: "", aliases: &[], status: Status::Missing(why) }
    }
}

impl Kind {
    fn expected(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Text => "text",
            Self::List => "a comma separated list",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Duration => "a duration such as 90s or 1m30s",
            Self::Ip => "an IP address",
            Self::PortRange => "a range of ports such as 30000-32767",
        }
    }

    fn check(self, value: &str) -> Result<String, String> {
        let fits = match self {
            Self::Bool => go::parse_bool(value).is_some(),
            Self::Text | Self::List => true,
            Self::Integer => value.parse::<i64>().is_ok(),
            Self::Number => value.parse::<f64>().is_ok_and(f64::is_finite),
            Self::Duration => duration::parse(value).is_ok(),
            Self::Ip => value.is_empty() || value.parse::<IpAddr>().is_ok(),
            Self::PortRange => port_range(value).is_some(),
        };
        if fits { Ok(value.to_owned()) } else { Err(format!("expected {}", self.expected())) }
    }

    fn placeholder(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Text => "TEXT",
            Self::List => "LIST",
            Self::Integer => "N",
            Self::Number => "NUMBER",
            Self::Duration => "DURATION",
            Self::Ip => "IP",
            Self::PortRange => "LOW-HIGH",
        }
    }
}

fn port_range(value: &str) -> Option<(u16, u16)> {
    let (low, high) = value.split_once('-')?;
    let range = (low.parse().ok()?, high.parse().ok()?);
    (range.0 <= range.1).then_some(range)
}

/// Turns single dashes into double ones, and underscores in flag names into dashes. Arguments after `--` stay as they are.
pub fn normalize(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut literal = false;
    args.into_iter()
        .map(|arg| {
            let Some(text) = arg.to_str().filter(|text| !literal && text.starts_with('-') && text.len() > 1) else { return arg };
            if text == "--" {
                literal = true;
                return arg;
            }
            let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            let bare = name.trim_start_matches('-');
            if !bare.starts_with(|c: char| c.is_ascii_alphabetic()) {
                return arg;
            }
            let name = match bare {
                "h" => "help".to_owned(),
                _ => bare.replace('_', "-"),
            };
            value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}")).into()
        })
        .collect()
}

/// Adds flags to a command.
pub fn add(command: Command, flags: &'static [Flag]) -> Command {
    command.args(flags.iter().map(|flag| {
        let kind = flag.kind;
        let mut arg = Arg::new(flag.name)
            .long(flag.name)
            .help(flag.help)
            .value_name(kind.placeholder())
            .allow_hyphen_values(true)
            .aliases(flag.aliases)
            .hide(flag.status != Status::Live)
            .action(if kind == Kind::List { ArgAction::Append } else { ArgAction::Set })
            .value_parser(move |value: &str| kind.check(value));
        if kind == Kind::Bool {
            arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true").hide_possible_values(true);
        }
        if !flag.default.is_empty() {
            arg = arg.default_value(flag.default);
        }
        // If a flag is repeated, the last one counts, as everywhere in Kubernetes.
        if kind == Kind::List { arg } else { arg.overrides_with(flag.name) }
    }))
}

/// The flags of one invocation, each given, default, or absent.
#[derive(Clone, Debug)]
pub struct Values {
    matches: ArgMatches,
    kinds: HashMap<&'static str, Kind>,
}

impl Values {
    pub fn new(matches: ArgMatches, flags: impl IntoIterator<Item = &'static Flag>) -> Self {
        Self { matches, kinds: flags.into_iter().map(|flag| (flag.name, flag.kind)).collect() }
    }

    /// Whether the user gave the flag.
    pub fn given(&self, name: &str) -> bool {
        self.check(name, None);
        self.matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
    }

    /// The value; empty if absent.
    pub fn text(&self, name: &str) -> String {
        self.check(name, None);
        self.matches.get_one::<String>(name).cloned().unwrap_or_default()
    }

    /// The value unless it is absent or empty.
    pub fn maybe(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|it| !it.is_empty())
    }

    pub fn bool(&self, name: &str) -> bool {
        self.check(name, Some(Kind::Bool));
        go::is_true(&self.text(name))
    }

    /// The parts of all occurrences, without empty ones.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.check(name, Some(Kind::List));
        let given = self.matches.get_many::<String>(name).into_iter().flatten();
        given.flat_map(|it| it.split(',')).map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
    }

    /// An integer in the range of `T`.
    ///
    /// # Errors
    /// Names the flag if the number is out of range.
    pub fn integer<T: TryFrom<i64>>(&self, name: &str) -> anyhow::Result<T> {
        self.check(name, Some(Kind::Integer));
        let number: i64 = self.maybe(name).and_then(|it| it.parse().ok()).unwrap_or_default();
        T::try_from(number).map_err(|_| anyhow::anyhow!("--{name}: {number} is out of range"))
    }

    pub fn number(&self, name: &str) -> f64 {
        self.check(name, Some(Kind::Number));
        self.maybe(name).and_then(|it| it.parse().ok()).unwrap_or_default()
    }

    pub fn duration(&self, name: &str) -> Duration {
        self.check(name, Some(Kind::Duration));
        self.maybe(name).and_then(|it| duration::parse(&it).ok()).unwrap_or_default()
    }

    pub fn ip(&self, name: &str) -> Option<IpAddr> {
        self.check(name, Some(Kind::Ip));
        self.maybe(name).and_then(|it| it.parse().ok())
    }

    /// The lowest and the highest port.
    pub fn ports(&self, name: &str) -> (u16, u16) {
        self.check(name, Some(Kind::PortRange));
        port_range(&self.text(name)).unwrap_or_default()
    }

    /// The given flags as `--name=value`, sorted by name.
    pub fn given_flags(&self) -> Vec<String> {
        let mut names: Vec<_> = self.kinds.keys().copied().filter(|name| self.given(name)).collect();
        names.sort_unstable();
        names
            .into_iter()
            .map(|name| match self.kinds[name] {
                Kind::List => format!("--{name}={}", self.list(name).join(",")),
                _ => format!("--{name}={}", self.text(name)),
            })
            .collect()
    }

    fn check(&self, name: &str, kind: Option<Kind>) {
        let known = self.kinds.get(name).unwrap_or_else(|| panic!("no flag --{name} in this command's table"));
        assert!(kind.is_none_or(|kind| kind == *known), "--{name} is not of kind {kind:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::new("port", Kind::Integer, "8080", "").alias(&["insecure-port"]),
        Flag::new("checkpoint", Kind::Bool, "true", ""),
        Flag::new("etcd-servers", Kind::List, "", ""),
        Flag::new("ttl", Kind::Duration, "5s", ""),
        Flag::new("v", Kind::Integer, "0", ""),
    ];

    fn parse(args: &[&str]) -> Result<Values, String> {
        let command = add(Command::new("km").no_binary_name(true), FLAGS);
        command
            .try_get_matches_from(normalize(args.iter().map(OsString::from)))
            .map(|it| Values::new(it, FLAGS))
            .map_err(|it| it.to_string())
    }

    #[test]
    fn every_spelling_is_the_same_flag() {
        for args in
            [["--port=1"].as_slice(), &["--port", "1"], &["-port=1"], &["-port", "1"], &["-insecure_port=1"], &["--port=2", "--port=1"]]
        {
            assert_eq!(parse(args).unwrap().integer::<u16>("port").unwrap(), 1, "{args:?}");
        }
        for args in [["-etcd_servers=a,b"].as_slice(), &["--etcd-servers", "a", "--etcd-servers=b"], &["--etcd-servers", "a, b,"]] {
            assert_eq!(parse(args).unwrap().list("etcd-servers"), ["a", "b"], "{args:?}");
        }
        for (args, expected) in
            [([].as_slice(), true), (&["--checkpoint"], true), (&["-checkpoint=false"], false), (&["--checkpoint=0"], false)]
        {
            assert_eq!(parse(args).unwrap().bool("checkpoint"), expected, "{args:?}");
        }
        assert_eq!(parse(&["-v=2"]).unwrap().integer::<u32>("v").unwrap(), 2);
        assert_eq!(parse(&["-ttl=1m30s"]).unwrap().duration("ttl"), Duration::from_secs(90));
        assert_eq!(parse(&["-v=2", "-port", "7"]).unwrap().given_flags(), ["--port=7", "--v=2"]);
    }

    #[test]
    fn every_flag_there_is_makes_sense() {
        for server in super::super::SERVERS {
            let flags = || server.flags.iter().chain(super::super::common::FLAGS);
            add(add(Command::new(server.name), server.flags), super::super::common::FLAGS).debug_assert();
            for flag in flags() {
                let name = format!("{} --{}", server.name, flag.name);
                assert!(flag.default.is_empty() || flag.kind.check(flag.default).is_ok(), "{name} has the default {}", flag.default);
                assert!(flag.status != Status::Live || !flag.help.is_empty(), "{name} does not say what it is for");
                assert!(!flag.help.ends_with('.') && !flag.name.contains('_'), "{name}");
            }
        }
    }

    #[test]
    fn mistakes_name_the_flag_and_what_was_expected() {
        for (args, expected) in [
            (["--port=x"], "expected a whole number"),
            (["--checkpoint=maybe"], "expected true or false"),
            (["--ttl=5"], "expected a duration such as 90s or 1m30s"),
            (["--nope"], "--nope"),
        ] {
            let error = parse(&args).unwrap_err();
            assert!(error.contains(expected) && error.contains(args[0].split('=').next().unwrap()), "{error}");
        }
        let values = parse(&["--port=70000"]).unwrap();
        assert_eq!(values.integer::<u16>("port").unwrap_err().to_string(), "--port: 70000 is out of range");
    }
}
