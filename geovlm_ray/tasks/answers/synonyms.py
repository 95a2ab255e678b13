"""Other names of the field's classes: one group of equivalent names a line.

They cover the vocabularies of AID, NWPU-RESISC45, UC Merced, EuroSAT, DOTA, DIOR, FAIR1M, xBD, BigEarthNet and fMoW, as
their papers and label files spell them. Plural, spelling and joined forms need no entry.
"""

from __future__ import annotations

SYNONYMS = """
airplane, plane, aircraft, aeroplane, jet
harbor, port, port area, seaport, marina harbor, dock, dockyard
parking lot, parking, car park, parking area, parking space, parking lot or garage
storage tank, tank, storage tanks, oil tank, fuel tank, storage silo, oil storage tank
baseball diamond, baseball field, baseball court, baseball
tennis court, tennis
basketball court, basketball
football field, soccer field, soccer ball field, football pitch, soccer pitch, football ground
ground track field, athletic track, running track, athletics field, track field
golf course, golf field, golf
swimming pool, pool
roundabout, traffic circle, rotary
intersection, crossroad, road intersection, crossroads, road junction
overpass, flyover
freeway, expressway, motorway, highway
runway, airstrip, landing strip
railway station, train station, rail station, railroad station
railway, railroad, rail track, train track, railway track, railway line
helipad, heliport, helicopter pad, helicopter landing pad
helicopter, chopper
chimney, smokestack, smoke stack
windmill, wind turbine, wind mill
wind farm, wind power plant
solar farm, solar power plant, solar panel farm, photovoltaic plant
thermal power station, thermal power plant, thermal power
power plant, power station
nuclear power plant, nuclear powerplant, nuclear power station
electric substation, electrical substation, power substation, substation
expressway service area, highway service area, service area, rest area
expressway toll station, toll station, toll booth, toll plaza, toll gate
train, railcar
container crane, gantry crane, port crane
car, automobile
small vehicle, small car, passenger car
large vehicle, heavy vehicle
dense residential, high density residential, densely residential, densely populated residential
medium residential, medium density residential, moderately dense residential
sparse residential, low density residential, sparsely residential, sparsely populated residential
mobile home park, trailer park, mobile homes, mobile home
residential, residential building, housing, residential district, residential neighborhood
industrial, industrial building, industrial district, factory area, industrial or commercial unit
commercial, commercial district, business district
school, school campus
church, chapel
square, plaza, public square, city square
center, city center, urban center
stadium, arena, sport stadium, sports arena
resort, holiday resort
viaduct, elevated bridge
bare land, bare ground, bareland, barren land, bare soil, wasteland
farmland, cropland, crop field, agricultural land, agricultural field, agriculture, agricultural, farm land, crop land
circular farmland, circular cropland, center pivot farmland, pivot irrigation
rectangular farmland, rectangular cropland
rice paddy, rice field, paddy field, terrace paddy
terrace, terraced field
annual crop, annual cropland
permanent crop, permanent cropland
herbaceous vegetation, herbaceous plants
forest, woodland, woods, wooded, forested
meadow, grassland, grass land
pasture, pasture land, grazing land
desert, sand desert
beach, seashore, sandy beach, seaside
sea and ocean, sea, ocean
sea lake, sea or lake, sealake
lake or pond, lake pond
water body, water, body of water, waterbody, open water
water course, watercourse, waterway
snowberg, snow mountain, snow berg, snowy mountain
sea ice, sea-ice, ice floe
mountain, mountainous
chaparral, shrubland, scrubland
wetland, wet land
peat bog, peatbog, peatland, bog
inland marsh, marshland
burnt area, burned area, burnt land
mine, mineral extraction site, quarry, surface mine, mining area, mining site
dump site, landfill, garbage dump
construction site, building site
continuous urban fabric, dense urban fabric
urban, urban area, city, built up area
rural, rural area, countryside
broad leaved forest, broadleaf forest, broadleaved forest, deciduous forest
coniferous forest, conifer forest, needleleaf forest
mixed forest, mixed woodland
olive grove, olive orchard
fruit tree and berry plantation, orchard
vineyard, grape field
non irrigated arable land, rainfed arable land
agro forestry area, agroforestry
transitional woodland shrub, transitional woodland and shrub
archaeological site, archeological site
educational institution, education institution
place of worship, worship place
shipyard, ship yard
shopping mall, shopping center, mall
office building, office block
single unit residential, single family residential, single family house
multi unit residential, apartment building, apartment block, multi family residential
ground transportation station, bus station
impoverished settlement, slum, informal settlement
gas station, petrol station, filling station
fire station, fire house
police station, police department
waste disposal, waste disposal site, waste disposal facility
water treatment facility, water treatment plant, wastewater treatment plant, sewage treatment plant
prison, jail, correctional facility
race track, racetrack, racing track
recreational facility, recreation facility
amusement park, theme park
border checkpoint, border crossing
burial site, cemetery, graveyard
dam, barrage
debris or rubble, debris, rubble
flooded road, road flooded
oil or gas facility, oil and gas facility, oil facility, gas facility
road bridge, highway bridge
space facility, spaceport, space center
tower, lookout tower
tunnel opening, tunnel entrance, tunnel
no damage, undamaged, intact, not damaged, not been damaged, not damage, unharmed, unaffected, damage free, \
no visible damage, no apparent damage, no sign of damage, no visible sign of damage, no significant damage, \
without damage, without any damage, no structural damage, no obvious damage, not visibly damaged, no damaged, \
no evidence of damage, zero damage, not affected, not appear damaged, not been affected, no any damage, non damaged
minor damage, minor damaged, slight damage, slightly damaged, light damage, lightly damaged, minorly damaged, \
minimal damage, small damage, low damage
major damage, major damaged, severe damage, severely damaged, heavy damage, heavily damaged, extensive damage, \
extensively damaged, majorly damaged, serious damage, seriously damaged, significant damage, significantly damaged, \
badly damaged, substantial damage, substantially damaged, partially destroyed, partially collapsed, \
partly destroyed, partial collapse
destroyed, completely destroyed, totally destroyed, collapsed, completely collapsed, total destruction, destruction, \
total loss, complete destruction, razed, demolished, completely demolished, destroy, fully destroyed, total collapse
un classified, unclassified, not classified, unknown damage
no change, unchanged, not changed, no changes, not change, without change
"""
"""Equivalent names; each name belongs to the first group that lists it."""

RELATED = """
ship, boat, vessel
small vehicle, car, sedan
large vehicle, truck, bus, lorry
airport, airfield, aerodrome
bridge, overpass
lake, pond
house, building
"""
"""Names that many datasets, but not all, use for one class (`Synonyms.related`)."""


def groups(table: str) -> tuple[tuple[str, ...], ...]:
    """The groups of a table."""
    return tuple(tuple(name.strip() for name in line.split(",")) for line in table.strip().splitlines())
