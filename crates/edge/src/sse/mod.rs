//! Streams of Server-Sent Events, whatever they show.

pub(crate) mod coding;
pub(crate) mod frame;
pub(crate) mod hub;
pub(crate) mod inflow;
pub(crate) mod limits;
pub(crate) mod pipe;
pub(crate) mod stream;
pub(crate) mod takeover;
pub(crate) mod turns;
