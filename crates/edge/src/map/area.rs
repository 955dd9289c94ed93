//! Areas of the world: the tiles that touch a box. The tiles are those of maps on the web (web mercator, XYZ), so
//! that clients that look at about the same place share what is encoded for each tile.

use std::collections::BTreeSet;
use std::f64::consts::PI;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// Maximum number of tiles of an area.
const MAX_TILES: u32 = 16;
/// The deepest zoom of an area, and the zoom of the tiles in which entries remember where devices were. A tile of
/// this zoom is 600 m wide at the equator.
pub(crate) const MAX_ZOOM: u8 = 16;
/// One value for each zoom that an area may have, computed when it is first needed.
pub(crate) type ByZoom<T> = [OnceLock<T>; MAX_ZOOM as usize + 1];
/// The latitude in degrees at which web mercator ends.
const MAX_LATITUDE: f64 = 85.051_128_779_806_6;
/// The zoom of the cells by which devices are indexed. A cell is 5 km wide at the equator.
const FINDING_ZOOM: u8 = 13;
/// Number of zooms by which the cells of clusters are deeper than their area.
const CELL_ZOOMS: u8 = 3;

/// A point of the world: distances from the north-western corner of the world's square, in units of 2^-32 of its
/// side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorldPoint {
    x: u32,
    y: u32,
}

/// A tile of the zoom by which devices are indexed, as a number. The cells of a tile of a smaller zoom have
/// consecutive numbers (Morton order: the bits of column and row alternate).
pub(crate) type Cell = u32;

/// A tile: the column from the west and the row from the north. The zoom follows from the context.
pub(crate) type Tile = (u32, u32);

impl WorldPoint {
    /// Returns the point at a latitude and longitude in degrees. Latitudes beyond the map's edge are moved to the
    /// edge.
    pub(crate) fn of(latitude: f64, longitude: f64) -> Self {
        let latitude = latitude.clamp(-MAX_LATITUDE, MAX_LATITUDE).to_radians();
        let x = (longitude + 180.0) / 360.0;
        let y = (1.0 - latitude.tan().asinh() / PI) / 2.0;
        // The casts saturate, so 180 degrees east is in the last column.
        Self { x: (x * 4_294_967_296.0) as u32, y: (y * 4_294_967_296.0) as u32 }
    }

    /// Returns the tile of this zoom that contains the point.
    pub(crate) fn tile(self, zoom: u8) -> Tile {
        let at = |n: u32| (u64::from(n) >> (32 - u32::from(zoom))) as u32;
        (at(self.x), at(self.y))
    }

    /// Returns the cell that contains the point.
    pub(crate) fn cell(self) -> Cell {
        cell_of(self.tile(FINDING_ZOOM))
    }
}

/// Returns the number of a tile of [`FINDING_ZOOM`].
fn cell_of((x, y): Tile) -> Cell {
    (0..FINDING_ZOOM)
        .fold(0, |cell, bit| cell | (x >> bit & 1) << (2 * bit) | (y >> bit & 1) << (2 * bit + 1))
}

/// The tiles that cover a box: columns and rows at one zoom, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Area {
    zoom: u8,
    /// The first column. It is larger than `east` if the area crosses the antimeridian.
    west: u32,
    north: u32,
    east: u32,
    south: u32,
}

impl Area {
    /// Parses `west,south,east,north` in degrees, as map libraries write them: longitudes may lie in any copy of the
    /// world, a box may be wider than the world, and latitudes may lie beyond the poles. Returns the tiles of the
    /// deepest zoom at which at most [`MAX_TILES`] cover the box.
    ///
    /// # Errors
    /// Returns a text that says what to write instead, if `text` is not four numbers or south is above north.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "bbox must be west,south,east,north: four numbers in degrees, south not above north, \
                              for example bbox=8.4,47.3,8.6,47.5; west may be larger than east, to cross the \
                              antimeridian";
        let numbers: Vec<f64> =
            text.split(',').map(|n| n.trim().parse()).collect::<Result<_, _>>().map_err(|_| WANTED)?;
        let [west, south, east, north] = numbers[..] else { return Err(WANTED) };
        if numbers.iter().any(|n| !n.is_finite()) || south > north {
            return Err(WANTED);
        }
        let (west, east) = in_one_world(west, east);
        let mut deepest = (0..=MAX_ZOOM).rev().map(|zoom| Self::at(zoom, west, south, east, north));
        Ok(deepest.find(|area| area.tiles() <= MAX_TILES).expect("at zoom 0 there is one tile"))
    }

    /// Returns the tiles of one zoom that cover a box.
    fn at(zoom: u8, west: f64, south: f64, east: f64, north: f64) -> Self {
        let (left, top) = WorldPoint::of(north, west).tile(zoom);
        let (right, bottom) = WorldPoint::of(south, east).tile(zoom);
        // The box goes around the world and ends in the tile in which it begins.
        let (left, right) = if west > east && left <= right { (0, (1 << zoom) - 1) } else { (left, right) };
        Self { zoom, west: left, north: top, east: right, south: bottom }
    }

    /// Returns the zoom of the area's tiles.
    pub(crate) fn zoom(&self) -> u8 {
        self.zoom
    }

    fn columns(&self) -> u32 {
        if self.west <= self.east {
            self.east - self.west + 1
        } else {
            (1 << self.zoom) - self.west + self.east + 1
        }
    }

    fn tiles(&self) -> u32 {
        self.columns().saturating_mul(self.south - self.north + 1)
    }

    /// Whether the area contains a point.
    pub(crate) fn contains(&self, spot: WorldPoint) -> bool {
        self.has_tile(spot.tile(self.zoom))
    }

    fn has_tile(&self, (x, y): Tile) -> bool {
        let column = if self.west <= self.east {
            (self.west..=self.east).contains(&x)
        } else {
            x >= self.west || x <= self.east
        };
        column && (self.north..=self.south).contains(&y)
    }

    /// Returns the tiles of the area, each once.
    pub(crate) fn each(self) -> impl Iterator<Item = Tile> {
        let columns = (0..self.columns()).map(move |n| (self.west + n) & ((1 << self.zoom) - 1));
        columns.flat_map(move |x| (self.north..=self.south).map(move |y| (x, y)))
    }

    /// Returns ranges of cells that cover the area, and perhaps some cells around it.
    pub(crate) fn cells(self) -> impl Iterator<Item = RangeInclusive<Cell>> {
        let (deeper, up) = (FINDING_ZOOM.saturating_sub(self.zoom), self.zoom.saturating_sub(FINDING_ZOOM));
        let firsts: BTreeSet<Cell> =
            self.each().map(|(x, y)| cell_of((x >> up << deeper, y >> up << deeper))).collect();
        firsts.into_iter().map(move |first| first..=first + ((1 << (2 * deeper)) - 1))
    }

    /// Returns the JSON object that tells a client what the area covers: the box of its tiles, their zoom and their
    /// number.
    pub(crate) fn json(&self) -> String {
        let Self { zoom, west, north, east, south } = *self;
        let (top, left) = degrees_of(f64::from(west), f64::from(north), zoom);
        let (bottom, right) = degrees_of(f64::from(east + 1), f64::from(south + 1), zoom);
        let tiles = self.tiles();
        format!(r#"{{"bbox":[{left:.6},{bottom:.6},{right:.6},{top:.6}],"zoom":{zoom},"tiles":{tiles}}}"#)
    }
}

/// Returns the longitudes of a box, in degrees, as the equivalent ones from -180 to 180.
fn in_one_world(west: f64, east: f64) -> (f64, f64) {
    let is_in = |degrees: f64| (-180.0..=180.0).contains(&degrees);
    let wrap = |degrees: f64| (degrees + 180.0).rem_euclid(360.0) - 180.0;
    let width = east - west;
    if width >= 360.0 {
        (-180.0, 180.0)
    } else if is_in(west) && is_in(east) {
        (west, east)
    } else if width < 0.0 {
        (wrap(west), wrap(east))
    } else {
        // 200 to 540 ends at 180, not in the column of -180.
        let east = wrap(west) + width;
        (wrap(west), if east > 180.0 { east - 360.0 } else { east })
    }
}

/// Returns the zoom of the cells of clusters in an area with this zoom.
pub(crate) fn cell_zoom(zoom: u8) -> u8 {
    zoom + CELL_ZOOMS
}

/// Writes the area as it stands in ids, after the point.
impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { zoom, west, north, east, south } = self;
        write!(f, "{zoom}.{west}.{north}.{east}.{south}")
    }
}

/// Returns the centre of a tile: latitude and longitude in degrees.
pub(crate) fn centre_of((x, y): Tile, zoom: u8) -> (f64, f64) {
    degrees_of(f64::from(x) + 0.5, f64::from(y) + 0.5, zoom)
}

/// Returns latitude and longitude in degrees of the point that is `column` tiles from the west and `row` tiles from
/// the north.
fn degrees_of(column: f64, row: f64, zoom: u8) -> (f64, f64) {
    let side = f64::from(1u32 << zoom);
    ((PI * (1.0 - 2.0 * row / side)).sinh().atan().to_degrees(), column / side * 360.0 - 180.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_box_is_told_from_one() {
        for text in [
            "",
            "1,2,3",
            "1,2,3,4,5",
            "a,b,c,d",
            "NaN,0,1,1",
            "0,0,inf,1",
            "0,0,1,-Infinity",
            "0,2,1,1",
            "0,92,1,91",
            "undefined,undefined,undefined,undefined",
        ] {
            assert!(Area::parse(text).is_err(), "{text}");
        }
        assert!(Area::parse(" 8.4, 47.3,8.6,47.5").is_ok());
    }

    #[test]
    fn a_box_may_cross_the_antimeridian() {
        let area = Area::parse("170,-20,-170,20").unwrap();
        assert!(area.contains(WorldPoint::of(0.0, 179.9)) && area.contains(WorldPoint::of(0.0, -179.9)));
        assert!(area.contains(WorldPoint::of(0.0, 180.0)) && area.contains(WorldPoint::of(0.0, -180.0)));
        assert!(!area.contains(WorldPoint::of(0.0, 0.0)));
        assert_eq!(area.each().count() as u32, area.tiles());
        let around = Area::parse("10,-1,9,1").unwrap();
        assert!((-180..=180).all(|degrees| around.contains(WorldPoint::of(0.0, f64::from(degrees)))));
    }

    #[test]
    fn boxes_of_other_copies_of_the_world_are_those_of_this_one() {
        for (text, same) in [
            ("182.9,-18.1,193.1,-9.7", "-177.1,-18.1,-166.9,-9.7"),
            ("-200,10,-170,20", "160,10,-170,20"),
            ("170,10,190,20", "170,10,-170,20"),
            ("530,10,550,20", "170,10,-170,20"),
            ("-550,10,-540.5,20", "170,10,179.5,20"),
            ("200,10,540,20", "-160,10,180,20"),
            ("190,10,-190,20", "-170,10,170,20"),
        ] {
            assert_eq!(Area::parse(text), Area::parse(same), "{text}");
        }
    }

    #[test]
    fn a_box_wider_or_higher_than_the_world_is_cut() {
        let world = Area::parse("-180,-90,180,90").unwrap();
        for text in [
            "-200,-100,200,100",
            "-1e9,-90,1e9,90",
            "0,-90,360,90",
            "-540,-85.06,540,85.06",
            "-1e308,-91,1e308,91",
        ] {
            assert_eq!(Area::parse(text), Ok(world), "{text}");
        }
        assert_eq!(Area::parse("8,80,9,120"), Area::parse("8,80,9,90"));
        assert_eq!(Area::parse("8,-1e300,9,-80"), Area::parse("8,-90,9,-80"));
    }

    #[test]
    fn numbers_are_read_as_scripts_write_them() {
        let written = Area::parse("8,-47,9,0.0000001");
        for text in
            ["8.0,-47.0,9.0,1e-7", " 8 , -47 ,\t9, 1E-7 ", "+8,-47,+9,.0000001", "8.,-47.,9.,0.0000001"]
        {
            assert_eq!(Area::parse(text), written, "{text}");
        }
    }

    #[test]
    fn the_world_and_a_point_are_boxes() {
        let world = Area::parse("-180,-90,180,90").unwrap();
        assert_eq!((world.zoom, world.tiles()), (2, 16));
        assert!(world.contains(WorldPoint::of(90.0, 180.0)) && world.contains(WorldPoint::of(-90.0, -180.0)));
        let point = Area::parse("8.5,47.4,8.5,47.4").unwrap();
        assert_eq!((point.zoom, point.tiles()), (MAX_ZOOM, 1));
    }

    #[test]
    fn an_area_stands_in_ids_as_earlier_versions_wrote_it() {
        for (bbox, text) in [
            ("8.4,47.3,8.6,47.5", "12.2143.1432.2145.1435"),
            ("170,-20,-170,20", "5.31.14.0.17"),
            ("-180,-90,180,90", "2.0.0.3.3"),
        ] {
            assert_eq!(Area::parse(bbox).unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_area_says_what_it_covers() {
        let area = Area::parse("-180,-90,180,90").unwrap();
        let bounds = r#"{"bbox":[-180.000000,-85.051129,180.000000,85.051129],"zoom":2,"tiles":16}"#;
        assert_eq!(area.json(), bounds);
    }

    proptest! {
        #[test]
        fn an_area_is_few_tiles_and_has_all_of_its_box(
            west in -180.0..180.0f64, east in -180.0..180.0f64, a in -90.0..90.0f64, b in -90.0..90.0f64,
            across in 0.0..1.0f64, up in 0.0..1.0f64,
        ) {
            let (south, north) = (a.min(b), a.max(b));
            let area = Area::parse(&format!("{west},{south},{east},{north}")).unwrap();
            prop_assert!(area.tiles() <= MAX_TILES);
            let width = if west <= east { east - west } else { east - west + 360.0 };
            let longitude = west + width * across;
            let longitude = if longitude > 180.0 { longitude - 360.0 } else { longitude };
            let inside = WorldPoint::of(south + (north - south) * up, longitude);
            prop_assert!(area.contains(inside));
            let tiles: Vec<Tile> = area.each().collect();
            prop_assert!(tiles.contains(&inside.tile(area.zoom)) && tiles.iter().all(|tile| area.has_tile(*tile)));
            prop_assert_eq!(tiles.len() as u32, area.tiles());
        }
    }
}
