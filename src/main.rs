//! argv and argv[0] to a subcommand; everything else is in the library.

fn main() -> std::process::ExitCode {
    km::cli::main(std::env::args_os())
}
