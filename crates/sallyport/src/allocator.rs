//! The allocator of the whole program: mimalloc.

use sallyport_runtime::memory;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Has large work end with its memory given back, see [`memory`].
pub(crate) fn set_up() {
    memory::on_idle(give_back);
}

/// Gives back what this thread has freed, and what ended threads have left.
fn give_back() {
    #[expect(
        unsafe_code,
        reason = "mimalloc has no safe function for it; its documentation asks for nothing"
    )]
    // SAFETY: `mi_collect` may be called by any thread at any time: it works on the heap of the
    // calling thread and on what the allocator shares under its own synchronisation.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
