"""Labels drawn on a map: GeoJSON, GeoPackage, Shapefile and FlatGeobuf over georeferenced images."""
