//! Panics. They show a bug, after which the state in memory may be anything, so a panic ends the process, and the next one starts from what
//! is stored. But data that one object brings with it would then end every process that reads it: where a computation concerns one object
//! alone, [`contain`] lets it fail for this object only.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

thread_local! {
    /// How many computations are contained in each other here.
    static CONTAINED: Cell<usize> = const { Cell::new(0) };
}

/// Runs a computation whose failure is not the process's. The caller discards the state that it has changed, or can live with any.
///
/// # Errors
/// The message of a panic, which has been printed.
pub fn contain<T>(compute: impl FnOnce() -> T) -> Result<T, String> {
    CONTAINED.set(CONTAINED.get() + 1);
    let result = panic::catch_unwind(AssertUnwindSafe(compute));
    CONTAINED.set(CONTAINED.get() - 1);
    result.map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

/// Makes every panic end the process, in whatever thread or task, unless it is contained.
pub fn abort_on_panic() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        print(panic);
        if CONTAINED.get() == 0 {
            std::process::abort();
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_contained_with_its_message() {
        assert_eq!(contain(|| 1), Ok(1));
        let name = "p";
        assert_eq!(contain(|| panic!("pod {name}")), Err::<(), _>("pod p".to_owned()));
        assert_eq!(contain(|| panic!("none")), Err::<(), _>("none".to_owned()));
        assert_eq!(contain(|| contain(|| panic!("inner")).is_err() && CONTAINED.get() == 1), Ok(true));
        assert_eq!(CONTAINED.get(), 0);
    }
}
