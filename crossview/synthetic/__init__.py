"""A made-up town that knows every answer: as OpenStreetMap data, and as photos taken in it."""
