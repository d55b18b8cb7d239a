//! Logs: one line per event on standard error, coloured only on a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The logging flags of the original.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `--v`: 0 is informative, from 4 on debugging, from 6 on everything.
    pub verbosity: u32,
    /// `--vmodule`: `pattern=N,…`, the verbosity of single modules, such as `scheduler=6`.
    pub modules: Vec<(String, u32)>,
}

/// Sends the logs of this process to standard error. `RUST_LOG`, if set, overrides the flags. Call once.
pub fn init(config: &Config) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives(config)));
    let terminal = std::io::stderr().is_terminal();
    // A second call (several components started by one test) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(config.verbosity >= 4)
        .try_init();
}

fn directives(config: &Config) -> String {
    let mut out = format!("warn,km={}", level(config.verbosity));
    for (module, verbosity) in &config.modules {
        out.push_str(&format!(",km::{}={}", module.replace('-', "_"), level(*verbosity)));
    }
    out
}

fn level(verbosity: u32) -> &'static str {
    match verbosity {
        0..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_becomes_levels() {
        let config = Config { verbosity: 4, modules: vec![("scheduler".to_owned(), 6)] };
        assert_eq!(directives(&config), "warn,km=debug,km::scheduler=trace");
        assert_eq!(directives(&Config::default()), "warn,km=info");
    }
}
