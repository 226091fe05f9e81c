"""The words of made-up titles: first and last words that suggest a genre, and words that suggest none."""

GENRES = (
    "Drama",
    "Comedy",
    "Crime",
    "Romance",
    "Horror",
    "Science Fiction",
    "Western",
    "War",
    "Sport",
    "Nature",
)

FIRST = {
    "Drama": "Broken Silent Bitter Fading Distant Fragile Quiet Wounded",
    "Comedy": "Silly Crazy Clumsy Awkward Goofy Cheerful Lucky Ridiculous",
    "Crime": "Stolen Guilty Crooked Murderous Corrupt Wanted Undercover Deadly",
    "Romance": "Tender Beloved Kissing Enchanted Longing Passionate Sweet Secret",
    "Horror": "Haunted Bloody Cursed Screaming Rotten Demonic Buried Creeping",
    "Science Fiction": "Galactic Quantum Robotic Orbital Stellar Cosmic Android Martian",
    "Western": "Dusty Outlaw Frontier Lonesome Prairie Gunslinger Rustling Saddle",
    "War": "Fallen Marching Armored Besieged Wartime Enlisted Decorated Northern",
    "Sport": "Champion Winning Olympic Undefeated Sprinting Rookie Boxing Racing",
    "Nature": "Wild Tropical Frozen Migrating Savanna Coral Jungle Endangered",
}
LAST = {
    "Drama": "Daughter Inheritance Farewell Confession Regret Marriage Letters Winter",
    "Comedy": "Roommates Wedding Disguise Neighbours Prank Blunder Vacation Inlaws",
    "Crime": "Detective Heist Alibi Witness Gangster Verdict Ransom Informant",
    "Romance": "Kiss Sweetheart Valentine Embrace Lovers Honeymoon Affair Serenade",
    "Horror": "Graveyard Nightmare Cellar Vampire Possession Crypt Slaughter Asylum",
    "Science Fiction": "Spaceship Colony Planet Cyborg Wormhole Starfleet Asteroid Singularity",
    "Western": "Sheriff Stagecoach Ranch Saloon Canyon Cowboy Posse Homestead",
    "War": "Battalion Trenches Bunker Regiment Soldier Armistice Frontline Convoy",
    "Sport": "Stadium Marathon Coach Playoffs Goalkeeper Tournament Knockout Finish",
    "Nature": "Rainforest Whales Glacier Wolves Reef Elephants Wetlands Eagles",
}
NEUTRAL_FIRST = "Golden Hidden Second Last Blue Early Open Great Long Other Perfect New"
NEUTRAL_LAST = "Road Story House Days Summer Bridge River Morning Hour Way Door Game"
