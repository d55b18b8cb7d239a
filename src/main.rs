//! argv and argv[0] to a subcommand; everything else is in the library.

/// What a write makes and drops, it makes of very many small pieces: with the allocator of glibc it computes a sixth longer.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is free goes back within a second, even if nothing happens: an idle server is to be small.
#[allow(unsafe_code, reason = "jemalloc looks for its settings under this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 70] = b"narenas:4,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> std::process::ExitCode {
    km::cli::main(std::env::args_os())
}
