//! The command line: subcommands, their flags, and the components that they start. Components know nothing of flags.

mod access;
mod apiserver;
mod cloud;
mod cloud_agents;
mod common;
mod controller_manager;
mod executor;
mod flag;
mod minion;
mod proxy;
mod scheduler;
mod stores;
mod up;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Command;
use clap::error::ErrorKind;

use flag::{Flag, Status, Values};

/// A subcommand.
struct Server {
    name: &'static str,
    /// Names of the executable that select this subcommand.
    installed_as: &'static [&'static str],
    about: &'static str,
    flags: &'static [Flag],
    run: fn(Values) -> anyhow::Result<()>,
    hidden: bool,
}

const SERVERS: &[Server] = &[
    apiserver::SERVER,
    controller_manager::SERVER,
    scheduler::SERVER,
    executor::SERVER,
    minion::SERVER,
    proxy::PROXY,
    proxy::DNS,
    up::SERVER,
    version::SERVER,
    executor::PAUSE,
];

/// Runs the subcommand in argv. The name of the executable counts too: `kube-apiserver` or `k8sm-scheduler` is that subcommand.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let installed = args.next().unwrap_or_default();
    let base = std::path::Path::new(&installed).file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    let mut rest = flag::normalize(args);
    if let Some(server) = SERVERS.iter().find(|it| it.name == base || it.installed_as.contains(&base.as_str())) {
        rest.insert(0, server.name.into());
    }
    if rest.first().is_some_and(|it| it.to_string_lossy().starts_with("--version")) {
        version::print(rest[0].to_string_lossy().strip_prefix("--version=").unwrap_or("true"));
        return ExitCode::SUCCESS;
    }
    let matches = match command().try_get_matches_from(rest) {
        Ok(matches) => matches,
        Err(error) => return refuse(&error),
    };
    let (name, values) = matches.subcommand().expect("clap asks for a subcommand");
    let server = SERVERS.iter().find(|it| it.name == name).expect("clap knows only ours");
    let values = Values::new(values.clone(), server.flags.iter().chain(common::FLAGS));
    if values.given("version") && values.text("version") != "false" {
        version::print(&values.text("version"));
        return ExitCode::SUCCESS;
    }
    common::start_logs(&values);
    for flag in server.flags.iter().chain(common::FLAGS).filter(|it| values.given(it.name)) {
        match flag.status {
            Status::Live => {}
            Status::Obsolete(why) => tracing::warn!("--{} has no effect: {why}", flag.name),
            Status::Missing(why) => {
                say(&format!("Error: --{}: {why}", flag.name));
                return ExitCode::FAILURE;
            }
        }
    }
    match (server.run)(values) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("Error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let command = Command::new("km")
        .about("Kubernetes on Apache Mesos, in one executable")
        .no_binary_name(true)
        .subcommand_required(true)
        .arg_required_else_help(false)
        .disable_help_subcommand(true)
        .subcommand_value_name("SERVER")
        .subcommand_help_heading("Servers")
        .after_help("Run `km SERVER --help` for the flags of one server.");
    SERVERS.iter().fold(command, |command, server| {
        let sub = Command::new(server.name)
            .about(server.about)
            .hide(server.hidden)
            .display_name(format!("km {}", server.name))
            .bin_name(format!("km {}", server.name))
            .override_usage(format!("km {} [flags]", server.name));
        command.subcommand(flag::add(flag::add(sub, server.flags), common::FLAGS))
    })
}

/// Prints an error of argv, with the usage. Help is not an error.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::MissingSubcommand => {
            say(&format!("Error: no server specified\n\n{}", command().render_help()));
            ExitCode::FAILURE
        }
        ErrorKind::InvalidSubcommand => {
            let name = error.get(clap::error::ContextKind::InvalidSubcommand).map(ToString::to_string).unwrap_or_default();
            say(&format!("Error: server not found: {name}\n\n{}", command().render_help()));
            ExitCode::FAILURE
        }
        ErrorKind::UnknownArgument => {
            let name = error.get(clap::error::ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
            let usage = error.get(clap::error::ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
            let hint = match error.get(clap::error::ContextKind::SuggestedArg) {
                Some(similar) => format!(" (did you mean {similar}?)"),
                None => String::new(),
            };
            say(&format!("Error: unknown flag: {name}{hint}\n\n{usage}\n\nAdd --help for the list of flags."));
            ExitCode::FAILURE
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            say(&format!("Error: {}\n\nAdd --help for the list of flags.", first.strip_prefix("error: ").unwrap_or(first)));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "what a command says to its user is not a log line")]
fn say(text: &str) {
    eprintln!("{}", text.trim_end());
}
