//! Passes the arguments to the library, which selects the subcommand.

/// A write allocates very many small objects; with glibc's allocator it takes a sixth more CPU time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Free memory is returned within a second even if idle, to keep idle servers small.
#[allow(unsafe_code, reason = "jemalloc looks for its settings under this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 70] = b"narenas:4,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> std::process::ExitCode {
    km::supervise::abort_on_panic();
    km::cli::main(std::env::args_os())
}
