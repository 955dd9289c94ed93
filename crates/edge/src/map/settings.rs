//! Settings of the live map.

use std::time::Duration;

use tutti_service::Settings;
use tutti_service::shared::Locations;

use crate::map::area::MAX_ZOOM;

/// Settings of the live map.
#[derive(Clone, Debug)]
pub struct MapSettings {
    /// What all services that share the map's feeds must agree on.
    pub locations: Locations,
    /// Whether the map may be read without a token.
    pub is_public: bool,
    /// The shortest time between two steps of the map.
    pub tick: Duration,
    /// An area at this zoom or one further out is shown as clusters; `None`: never.
    pub clusters_to_zoom: Option<u8>,
}

impl MapSettings {
    /// Reads the settings.
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let locations = Locations::configure(settings);
        let is_public = settings.get("map.public", true, "whether the live map is readable without a token");
        let tick = settings.number(
            "map.tick_ms",
            250u64,
            0..=60_000,
            "milliseconds between two steps of the live map at least; 0: each batch at once",
        );
        let clusters_to_zoom = settings.optional(
            "map.clusters_to_zoom",
            "zoom, 0 (the world) to 16, up to which areas get clusters in place of devices; none: never",
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
