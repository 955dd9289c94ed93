//! Settings of the live map.

use std::time::Duration;

use tutti_service::Settings;
use tutti_service::shared::Locations;

use crate::map::area::MAX_ZOOM;

/// Settings of the live map.
#[derive(Clone, Debug)]
pub struct MapSettings {
    /// Settings that all services that share the map's feeds must agree on.
    pub locations: Locations,
    /// Whether the map may be read without a token.
    pub is_public: bool,
    /// Minimum time between two steps of the map.
    pub tick: Duration,
    /// Areas at this zoom or further out are shown as clusters. `None`: areas are never clustered.
    pub clusters_to_zoom: Option<u8>,
}

impl MapSettings {
    /// Reads the settings of the live map. Adds a mistake to `settings` for each value that is not valid.
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let locations = Locations::configure(settings);
        let is_public = settings.get("map.public", true, "whether the live map is readable without a token");
        let tick = settings.number(
            "map.tick_ms",
            250u64,
            0..=60_000,
            "minimum milliseconds between two steps of the live map; 0 publishes each batch at once",
        );
        let clusters_to_zoom = settings.optional(
            "map.clusters_to_zoom",
            "largest zoom, 0 (the world) to 16, at which areas show clusters instead of devices; unset: never",
        );
        let clusters_to_zoom = clusters_to_zoom.and_then(|text| {
            let zoom = text.parse().ok().filter(|zoom| *zoom <= MAX_ZOOM);
            if zoom.is_none() {
                settings.mistake(format!("map.clusters_to_zoom = {text:?}: must be 0 to {MAX_ZOOM}"));
            }
            zoom
        });
        Self { locations, is_public, tick: Duration::from_millis(tick), clusters_to_zoom }
    }
}
