//! Bounds that no configuration changes. Units stand last in the name.
//!
//! Bounds that an operator may set are settings in [`crate::config`].

/// Longest user id, folder segment and file name.
pub const NAME_BYTES_MAX: usize = 255;
/// Deepest folder.
pub const FOLDER_SEGMENTS_MAX: usize = 32;
/// Highest part number; past it: 400 `invalid_part_number`.
pub const PART_NUMBER_MAX: u32 = 10_000;
/// A last part smaller than this grows by what is appended, instead of taking a number of its own.
pub const TAIL_BYTES_MIN: u64 = 64 << 10;
/// A part larger than this is written where it belongs in the whole file as it arrives.
pub const PLACED_BYTES_MIN: u64 = 64 << 10;
/// What init suggests as the size of a part.
pub const PART_BYTES_SUGGESTED: u64 = 8 << 20;
/// Most files of one batch init.
pub const BATCH_FILES_MAX: usize = 1_000;
/// Most partial uploads of a final one.
pub const PARTIALS_MAX: usize = 1_000;
/// Most bytes of folder and `meta`, summed over the files of one batch init.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Most list entries of one batch: its files times the folders that list each.
pub const BATCH_LISTINGS_MAX: usize = 4_096;
/// Most files of one batch download.
pub const ARCHIVE_FILES_MAX: usize = 100_000;
/// Longest media type that is stored.
pub const MIME_BYTES_MAX: usize = 255;
/// Largest JSON request body, inline content not counted.
pub const JSON_BYTES_MAX: usize = 1 << 20;
/// Deepest JSON nesting.
pub const JSON_DEPTH_MAX: usize = 64;
/// Largest caller's `meta`, as JSON text.
pub const META_BYTES_MAX: usize = 4 << 10;
/// Longest JWT that is examined.
pub const JWT_BYTES_MAX: usize = 8 << 10;
/// Longest opaque service token.
pub const OPAQUE_TOKEN_BYTES_MAX: usize = 512;
/// Shortest opaque service token that may be registered.
pub const OPAQUE_TOKEN_BYTES_MIN: usize = 16;
/// Valid lifetime of a user JWT, in hours.
pub const USER_TOKEN_HOURS: std::ops::RangeInclusive<u64> = 1..=720;
/// Valid lifetime of a service JWT, in days.
pub const SERVICE_TOKEN_DAYS: std::ops::RangeInclusive<u64> = 1..=3650;
/// How long a key that signed a receipt stays in the key set, in days.
pub const RECEIPT_KEY_DAYS: u64 = 366;
/// Valid lifetime of a signed link, in seconds.
pub const LINK_TTL_SECONDS: std::ops::RangeInclusive<u64> = 1..=7 * 24 * 3600;
/// Most ranges of one `Range` header; past it the header is ignored.
pub const RANGES_MAX: usize = 64;
/// Clock difference that is tolerated in `nbf` and `iat`, in seconds.
pub const CLOCK_LEEWAY_SECONDS: u64 = 60;
/// Files read from the index at a time while a list streams.
pub const LIST_PAGE_FILES: usize = 256;
/// One buffer of a transfer. A transfer holds at most two, and all uploads together hold some more
/// (`blob/disk/buffers.rs`).
pub const TRANSFER_BUFFER_BYTES: usize = 128 << 10;
