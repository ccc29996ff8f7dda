//! Thin wrappers of the operating system: clock, randomness, durable files, signals, log, TLS
//! files, the service manager. Also counts that are shared by layers which do not know each other.

pub mod audit;
pub mod clock;
pub mod counts;
pub mod data_dir;
pub mod durable;
pub mod fault;
pub mod log;
pub mod owner;
pub mod process;
pub mod random;
pub mod signal;
pub mod sync_override;
pub mod systemd;
pub mod tls;
