# A BAR that is moved while it is decoded stays where it was.
s/\(!show \|\| bar->gpa != bar->address\)/!show/
