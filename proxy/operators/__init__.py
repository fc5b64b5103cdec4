"""What operators see and do on the command line, beside a service that runs or without it.

Rule 1: what a caller sent and was answered is shown only to who asks for it in so many words; credentials never.
Rule 2: whoever names what is not there, or asks for what cannot be done, hears so; the rest is done all the same. The
        exit code tells both: 0 all is done, 1 something is not, 2 the command or a setting is wrong.
Rule 3: a line may hold words of strangers: nothing in it steers a terminal.
"""
