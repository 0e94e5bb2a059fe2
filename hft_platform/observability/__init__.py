"""What is measured of a workspace for people and alarms; it reads files and changes nothing."""
