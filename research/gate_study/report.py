def result_of(made, bench):
    return made


def text_of(r):
    return str(len(r))


def write(r, p):
    return []
