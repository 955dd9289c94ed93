//! What all that follows a feed has in common.

pub(crate) mod cursor_wait;
